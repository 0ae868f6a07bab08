"""What a new cluster gets: DNS, and a default StorageClass. Decides, and does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from components import DNS_SERVICE_IP, DOMAIN

COREDNS_IMAGE = "towline.local/coredns:1"

_LABELS = {"k8s-app": "kube-dns"}
_SYSTEM = "/api/v1/namespaces/kube-system"

# Outside names do not exist: the node has no way out, and a name server that
# is silent about them costs every such look-up its time-out. In a block of their
# own, because `template` comes before `kubernetes` in a block's fixed order.
_COREFILE = f"""
{DOMAIN}:53 in-addr.arpa:53 ip6.arpa:53 {{
    errors
    health :8080 {{
        lameduck 1s
    }}
    ready
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }}
    loadbalance
    reload
}}
.:53 {{
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object with the collection that it is created in, in an order that works."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    yield "/apis/storage.k8s.io/v1/storageclasses", _storage_class()
    yield f"{_SYSTEM}/serviceaccounts", _named("v1", "ServiceAccount", "coredns")
    yield f"{rbac}/clusterroles", _cluster_role()
    yield f"{rbac}/clusterrolebindings", _cluster_role_binding()
    yield (
        f"{_SYSTEM}/configmaps",
        {
            **_named("v1", "ConfigMap", "coredns"),
            "data": {"Corefile": _COREFILE},
        },
    )
    yield f"{_SYSTEM}/services", _service()
    yield "/apis/apps/v1/namespaces/kube-system/deployments", _deployment()


def _named(api_version: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}}


def _storage_class() -> dict[str, Any]:
    made = _named("storage.k8s.io/v1", "StorageClass", "host-path")
    made["metadata"]["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {**made, "provisioner": "kubernetes.io/host-path", "reclaimPolicy": "Delete"}


def _cluster_role() -> dict[str, Any]:
    def read(group: str, *resources: str) -> dict[str, Any]:
        return {"apiGroups": [group], "resources": [*resources], "verbs": ["list", "watch"]}

    return {
        **_named("rbac.authorization.k8s.io/v1", "ClusterRole", "system:coredns"),
        "rules": [
            read("", "endpoints", "services", "pods", "namespaces"),
            read("discovery.k8s.io", "endpointslices"),
        ],
    }


def _cluster_role_binding() -> dict[str, Any]:
    return {
        **_named("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "system:coredns"),
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "system:coredns",
        },
        "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
    }


def _service() -> dict[str, Any]:
    made = _named("v1", "Service", "kube-dns")
    made["metadata"]["labels"] = {**_LABELS, "kubernetes.io/name": "CoreDNS"}
    made["spec"] = {
        "clusterIP": DNS_SERVICE_IP,
        "selector": _LABELS,
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ],
    }
    return made


def _deployment() -> dict[str, Any]:
    made = _named("apps/v1", "Deployment", "coredns")
    made["metadata"]["labels"] = _LABELS
    made["spec"] = {
        "replicas": 1,
        "selector": {"matchLabels": _LABELS},
        "template": {"metadata": {"labels": _LABELS}, "spec": _pod()},
    }
    return made


def _pod() -> dict[str, Any]:
    return {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        # Also a node that is not ready yet: DNS is part of becoming ready.
        "tolerations": [{"operator": "Exists"}],
        "containers": [
            {
                "name": "coredns",
                "image": COREDNS_IMAGE,
                "imagePullPolicy": "Never",
                "args": ["-conf", "/etc/coredns/Corefile"],
                "readinessProbe": {
                    "httpGet": {"path": "/ready", "port": 8181},
                    "periodSeconds": 1,
                    "failureThreshold": 3,
                },
                "resources": {"requests": {"cpu": "10m", "memory": "30Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
                "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
            }
        ],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
