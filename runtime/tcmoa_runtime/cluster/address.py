"""Addresses of Ray clusters, and one call that finds out whether and how a cluster answers.

Ray itself tries a wrong address, or a cluster with another token, for 20 to 40 seconds and then reports neither.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from tcmoa_runtime.errors import InputError

AUTO: Final = "auto"
CLIENT_SCHEME: Final = "ray://"

Answer = Literal["ready", "token", "other", "silent"]
"""Of a server: it is a Ray cluster, one that refuses the token, another program, or there is none."""

_FORMS: Final = "auto, HOST:6379 or ray://HOST:10001"
_TIMEOUT_S: Final = 5.0
_HEAD_METHOD: Final = "/ray.rpc.NodeInfoGcsService/GetClusterId"
_CLIENT_METHOD: Final = "/ray.rpc.RayletDriver/ClusterInfo"


def check_address(address: str) -> str:
    """Return an address; raises InputError unless it is `auto`, HOST:PORT or ray://HOST:PORT."""
    host, _, port = address.removeprefix(CLIENT_SCHEME).rpartition(":")
    is_pair = re.fullmatch(r"[\w.-]+|\[[0-9a-fA-F:.]+\]", host) and re.fullmatch(r"\d{1,5}", port)
    if address != AUTO and not (is_pair and 0 < int(port) < 65536):
        raise InputError(f"{address!r}; expected {_FORMS}", subject="address")
    return address


def ask(address: str, token: str | None) -> Answer:
    """Ask the server at HOST:PORT or ray://HOST:PORT for its cluster, with a token if there is one."""
    import grpc

    is_client = address.startswith(CLIENT_SCHEME)
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    with grpc.insecure_channel(address.removeprefix(CLIENT_SCHEME)) as channel:
        call = channel.unary_unary(_CLIENT_METHOD if is_client else _HEAD_METHOD)
        try:
            call(
                b"",
                timeout=_TIMEOUT_S,
                metadata=[*metadata, *([("client_id", "tcmoa")] if is_client else [])],
            )
        except grpc.RpcError as error:
            return _answer_of(error.code().name)
    return "ready"


def _answer_of(code: str) -> Answer:
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return "token"
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return "silent"
    return "other" if code == "UNIMPLEMENTED" else "ready"
