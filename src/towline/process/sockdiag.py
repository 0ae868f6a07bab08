"""Linux's own answer to "which TCP sockets are listened on": sock_diag(7).

/proc/net/tcp says it too, but with every connection of the machine around it: a laptop
that has just closed thousands pays for each of them at every look. The kernel walks the
listening sockets only, and answers in tens of microseconds.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Container, Iterator
from contextlib import closing

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_DUMP_REQUEST = 0x001 | 0x300  # NLM_F_REQUEST | NLM_F_DUMP
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_LISTEN = 1 << 10  # of linux/tcp_states.h
_HEADER = struct.Struct("=IHHII")
_ANSWER_BYTES = 72  # struct inet_diag_msg
_PORT = struct.Struct(">H")  # its fourth byte on
_TIMEOUT_S = 1.0


def listening_sockets(
    ports: Container[int] | None = None,
) -> list[tuple[int, str, int]] | None:
    """(port, address, inode) of each listening TCP socket; None where this is not offered.

    Args:
        ports: only these. The gate looks ten times a second, and most of a look would be
            spent on the addresses of others' sockets.
    """
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        return None
    found: list[tuple[int, str, int]] = []
    try:
        with closing(socket.socket(family, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)) as netlink:
            netlink.settimeout(_TIMEOUT_S)
            for inet in (socket.AF_INET, socket.AF_INET6):
                netlink.send(_request(inet))
                found += _answers(netlink, ports)
    except OSError:
        return None  # forbidden in a sandbox, or not built into the kernel
    return found


def _request(inet: int) -> bytes:
    body = struct.pack("=BBBBI", inet, socket.IPPROTO_TCP, 0, 0, _LISTEN) + bytes(48)
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _DUMP_REQUEST, inet, 0) + body


def _answers(
    netlink: socket.socket, ports: Container[int] | None
) -> Iterator[tuple[int, str, int]]:
    while True:
        data = netlink.recv(65536)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, at)
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR or length < _HEADER.size + _ANSWER_BYTES:
                raise OSError("sock_diag refused")
            answer = data[at + _HEADER.size : at + length]
            if ports is None or _PORT.unpack_from(answer, 4)[0] in ports:
                yield _socket(answer)
            at += (length + 3) & ~3


def _socket(answer: bytes) -> tuple[int, str, int]:
    (port,) = _PORT.unpack_from(answer, 4)
    raw = answer[8:12] if answer[0] == socket.AF_INET else answer[8:24]
    (inode,) = struct.unpack_from("=I", answer, 68)
    return port, str(ipaddress.ip_address(raw)), inode
