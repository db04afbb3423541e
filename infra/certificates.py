"""The secrets by which the parts of the S3 server recognise each other. ``python -m infra.certificates FOLDER``.

SeaweedFS's master, volume server and filer would serve every process that reaches their ports. With these secrets they
only talk to those that hold one private key, over gRPC and HTTP. Only the S3 port takes requests of others.
"""

import secrets
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ada2i.jobs import cluster

CERTIFICATE: Final = "s3-inner.crt"
KEY: Final = "s3-inner.key"
SETTINGS: Final = "security.toml"  # the name that SeaweedFS looks for

_HOSTS: Final = ("localhost", "s3")  # the second is the name in the Compose stack
_YEARS: Final = 20
_SIGNING: Final = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
_SERVERS: Final = ("master", "volume", "filer")
_COMPONENTS: Final = (*_SERVERS, "s3", "admin", "worker", "msg_broker", "msg_agent", "mq", "client")


def make(folder: Path) -> None:
    """Make the key, its certificate and SeaweedFS's settings, unless all exist; SeaweedFS must run in that folder."""
    if all((folder / name).exists() for name in (KEY, CERTIFICATE, SETTINGS)):
        return
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # A crash between these writes leaves some of the files: all are made again.
    cluster.write_secret(folder / SETTINGS, settings(folder.absolute()))
    cluster.write_secret(folder / CERTIFICATE, _signed(key).public_bytes(serialization.Encoding.PEM).decode())
    cluster.write_secret(folder / KEY, private.decode())


def settings(folder: Path) -> str:
    """Return settings that require the certificate, which is its own authority, on every port but S3's."""
    pair = f'cert = "{folder}/{CERTIFICATE}"\nkey = "{folder}/{KEY}"\n'
    authority = f'ca = "{folder}/{CERTIFICATE}"\n'
    sections = {name: f'key = "{secrets.token_hex(16)}"\n' for name in _SIGNING} | {"grpc": authority}
    sections |= {f"grpc.{name}": pair for name in _COMPONENTS}
    sections |= {f"https.{name}": pair + authority for name in (*_SERVERS, "admin")}
    sections["https.client"] = f"enabled = true\n{pair}{authority}"
    return "".join(f"[{name}]\n{lines}" for name, lines in sections.items())


def _signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ada2i-s3-inner")])
    now = datetime.now(UTC)
    hosts = [*map(x509.DNSName, _HOSTS), x509.IPAddress(IPv4Address("127.0.0.1"))]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks differ
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(key, hashes.SHA256())
    )


if __name__ == "__main__":
    make(Path(sys.argv[1]))
