"""The node's components: their configuration files and command lines. Decides, and does nothing."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from places import CONTAINERD_SOCKET, NODE_STATE

NODE_IP = "198.18.0.1"  # of the range for tests (RFC 2544); the kubelet refuses a loopback address
PODS = "10.88.0.0/16"
SERVICES = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"
DOMAIN = "cluster.local"
API_PORT = 6443
PAUSE_IMAGE = "towline.local/pause:1"

PKI = NODE_STATE / "pki"
_ETCD = "http://127.0.0.1:2379"
_ETCD_PEER = "http://127.0.0.1:2380"


@dataclass(frozen=True, slots=True)
class Node:
    """What differs from node to node, as far as its components care."""

    name: str
    tls_name: str  # for clients on the host
    cgroup: str
    snapshotter: str
    plugins: str  # the folder with the network plugins
    etcd: str
    kube: str


def certificates(node: Node) -> list[dict[str, Any]]:
    """What `node certificates` is to make.

    The API server has two: clients in the cluster get one that does not name a
    loopback address, as in any real cluster, so that tests of in-cluster
    clients mean something. Clients on the host ask for the other by its name
    (`tls-server-name` in the kubeconfig): their way in is 127.0.0.1.
    """
    api_names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    return [
        {
            "name": "apiserver",
            "common_name": "kube-apiserver",
            "dns_names": [*api_names, f"kubernetes.default.svc.{DOMAIN}"],
            "ips": [API_SERVICE_IP, NODE_IP],
        },
        {"name": "apiserver-host", "common_name": "kube-apiserver", "dns_names": [node.tls_name]},
        {
            "name": "kubelet",
            "common_name": f"system:node:{node.name}",
            "organizations": ["system:nodes"],
            "dns_names": [node.name],
            "ips": [NODE_IP],
        },
        {"name": "admin", "common_name": "admin", "organizations": ["system:masters"]},
        {"name": "controller-manager", "common_name": "system:kube-controller-manager"},
        {"name": "scheduler", "common_name": "system:kube-scheduler"},
        {"name": "proxy", "common_name": "system:kube-proxy"},
    ]


def kubeconfig(
    *, user: str, server: str, context: str, pki: Path, tls_name: str | None = None
) -> str:
    """A kubeconfig with everything in it, so that it can be copied elsewhere."""

    def inline(file: str) -> str:
        return base64.b64encode((pki / file).read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": inline("ca.crt")}
    if tls_name:
        cluster["tls-server-name"] = tls_name
    keys = {
        "client-certificate-data": inline(f"{user}.crt"),
        "client-key-data": inline(f"{user}.key"),
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": context, "cluster": cluster}],
            "users": [{"name": f"{context}-{user}", "user": keys}],
            "contexts": [
                {"name": context, "context": {"cluster": context, "user": f"{context}-{user}"}}
            ],
            "current-context": context,
        },
        indent=2,
    )


KUBECONFIG_USERS = ("admin", "kubelet", "controller-manager", "scheduler", "proxy")


def kubeconfig_path(user: str) -> Path:
    return NODE_STATE / f"{user}.kubeconfig"


def files(node: Node) -> dict[Path, str]:
    """Every configuration file, by its path inside the node."""
    made = {
        NODE_STATE / "containerd.toml": _containerd(node),
        NODE_STATE / "cni" / "10-pods.conflist": json.dumps(_pod_network()),
        NODE_STATE / "kubelet.json": json.dumps(_kubelet(node)),
        NODE_STATE / "proxy.json": json.dumps(_proxy(node)),
        NODE_STATE / "resolv.conf": (
            f"nameserver {DNS_SERVICE_IP}\n"
            f"search default.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}\noptions ndots:5\n"
        ),
    }
    for user in KUBECONFIG_USERS:
        made[kubeconfig_path(user)] = kubeconfig(
            user=user, server=f"https://{NODE_IP}:{API_PORT}", context="node", pki=PKI
        )
    return made


def _containerd(node: Node) -> str:
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE no process may lower its
    # score, and runc fails with "can't get final child's PID from pipe: EOF".
    # enable_unprivileged_ports: off, as a cluster's nodes usually have it.
    return f"""version = 2
root = "{NODE_STATE}/containerd/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", \
"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{PAUSE_IMAGE}"
  enable_unprivileged_ports = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{node.plugins}"
    conf_dir = "{NODE_STATE}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{node.snapshotter}"
"""


def _pod_network() -> dict[str, Any]:
    """Every pod on a link of its own, routed (ptp).

    Not a bridge: between two pods of one bridge the answer of a Service's pod
    does not pass the node's iptables, and comes from the wrong address, unless
    the kernel has br_netfilter, which not every kernel has.
    """
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": PODS}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _kubelet(node: Node) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(PKI / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(PKI / "kubelet.crt"),
        "tlsPrivateKeyFile": str(PKI / "kubelet.key"),
        "clusterDNS": [DNS_SERVICE_IP],
        "clusterDomain": DOMAIN,
        "resolvConf": str(NODE_STATE / "resolv.conf"),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "failSwapOn": False,
        "failCgroupV1": False,
        # Lowering it takes CAP_SYS_RESOURCE.
        "oomScoreAdj": 0,
        # The machine's disk is not the node's: it may be rather full.
        "imageGCHighThresholdPercent": 99,
        "imageGCLowThresholdPercent": 98,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "serializeImagePulls": False,
    }


def _proxy(node: Node) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": PODS,
        "hostnameOverride": node.name,
        "bindAddress": NODE_IP,
        "clientConnection": {"kubeconfig": str(kubeconfig_path("proxy"))},
        # These limits are the machine's, not the network namespace's.
        "conntrack": {"maxPerCore": 0, "min": 0},
        "oomScoreAdj": 0,
    }


def commands(node: Node) -> dict[str, list[str]]:
    """The command line of every component, by its name."""
    return {
        "etcd": _etcd_command(node),
        "containerd": ["containerd", "--config", str(NODE_STATE / "containerd.toml")],
        "apiserver": _apiserver_command(node),
        "controller-manager": _controller_manager_command(node),
        "scheduler": [
            node.kube,
            "kube-scheduler",
            f"--kubeconfig={kubeconfig_path('scheduler')}",
            "--leader-elect=false",
        ],
        "kubelet": [
            node.kube,
            "kubelet",
            f"--config={NODE_STATE}/kubelet.json",
            f"--kubeconfig={kubeconfig_path('kubelet')}",
            f"--hostname-override={node.name}",
            f"--node-ip={NODE_IP}",
        ],
        "proxy": [node.kube, "kube-proxy", f"--config={NODE_STATE}/proxy.json"],
    }


def _etcd_command(node: Node) -> list[str]:
    return [
        node.etcd,
        f"--data-dir={NODE_STATE}/etcd",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        f"--listen-peer-urls={_ETCD_PEER}",
        f"--initial-advertise-peer-urls={_ETCD_PEER}",
        f"--initial-cluster=default={_ETCD_PEER}",
        "--unsafe-no-fsync=true",  # a sandbox that loses power is made anew
        "--log-level=warn",
    ]


def _apiserver_command(node: Node) -> list[str]:
    return [
        node.kube,
        "kube-apiserver",
        f"--etcd-servers={_ETCD}",
        "--bind-address=0.0.0.0",
        f"--secure-port={API_PORT}",
        f"--advertise-address={NODE_IP}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--client-ca-file={PKI}/ca.crt",
        f"--tls-cert-file={PKI}/apiserver.crt",
        f"--tls-private-key-file={PKI}/apiserver.key",
        f"--tls-sni-cert-key={PKI}/apiserver-host.crt,{PKI}/apiserver-host.key:{node.tls_name}",
        f"--service-account-key-file={PKI}/sa.pub",
        f"--service-account-signing-key-file={PKI}/sa.key",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--kubelet-client-certificate={PKI}/admin.crt",
        f"--kubelet-client-key={PKI}/admin.key",
        f"--kubelet-certificate-authority={PKI}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
    ]


def _controller_manager_command(node: Node) -> list[str]:
    return [
        node.kube,
        "kube-controller-manager",
        f"--kubeconfig={kubeconfig_path('controller-manager')}",
        f"--service-account-private-key-file={PKI}/sa.key",
        f"--root-ca-file={PKI}/ca.crt",
        f"--cluster-signing-cert-file={PKI}/ca.crt",
        f"--cluster-signing-key-file={PKI}/ca.key",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        # The default of 20 requests a second takes 5 s to start all controllers.
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        # The class `kubernetes.io/host-path`: claims are bound with nothing else running.
        "--enable-hostpath-provisioner=true",
    ]
