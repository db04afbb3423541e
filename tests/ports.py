"""Listening ports, and what SeaweedFS's inner ports answer to requests without their certificate."""

import ssl
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from itertools import product
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc

from infra import certificates

INNER_PATHS = ("/dir/assign", "/dir/lookup?fileId=1,01", "/col/delete?collection=ada2i", "/status", "/buckets/ada2i/")
INNER_CALLS = {
    "/filer_pb.SeaweedFiler/ListEntries": b"\x0a\x0e/buckets/ada2i",  # field 1: the folder
    "/filer_pb.SeaweedFiler/GetFilerConfiguration": b"",
    "/master_pb.Seaweed/CollectionList": b"",
    "/master_pb.Seaweed/Assign": b"",
    "/volume_server_pb.VolumeServer/VolumeServerStatus": b"",
}


def answers(host: str, port: int, certificate: Path | None) -> Iterator[tuple[str, object]]:
    """Ask a port over HTTP, HTTPS and gRPC, with a certificate or without; yield each request that is answered."""
    context = ssl._create_unverified_context()
    if certificate is not None:
        context.load_cert_chain(certificate / certificates.CERTIFICATE, certificate / certificates.KEY)
    for path, scheme in product(INNER_PATHS, ("http", "https")):
        try:
            with urlopen(f"{scheme}://{host}:{port}{path}", timeout=10, context=context) as answer:
                yield f"{scheme} {path}", answer.status
        except (OSError, HTTPException):
            continue
    files = [certificate / name for name in (certificates.KEY, certificates.CERTIFICATE)] if certificate else []
    pair = [file.read_bytes() for file in files]
    for call, body in INNER_CALLS.items():
        for channel in channels(host, port, pair):
            with channel, suppress(grpc.RpcError):
                yield call, list(channel.unary_stream(call)(body, timeout=5))


def channels(host: str, port: int, pair: list[bytes]) -> Iterator[Any]:
    """Yield a channel without encryption, and one with it, which believes any server."""
    yield grpc.insecure_channel(f"{host}:{port}")
    with suppress(OSError):
        server = ssl.get_server_certificate((host, port), timeout=5)
        yield grpc.secure_channel(f"{host}:{port}", grpc.ssl_channel_credentials(server.encode(), *pair))


def listening(process: int | str = "self") -> dict[int, tuple[str, str]]:
    """Return each listening TCP port of a process's network, with its address in the kernel's hex and its inode."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                address, port = fields[1].split(":")
                found[int(port, 16)] = (address, fields[9])
    return found
