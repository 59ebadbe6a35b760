"""Certificates for the servers of tests: an authority, what it has signed for a server on this machine, and for a client."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LASTING = timedelta(days=1)


class Certificates:
    """An authority; `write` puts `ca.pem`, and `server` and `client` as `.pem` and `.key`, into a folder."""

    def __init__(self, client: str = "guest") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("authority of a test")
        self._files = {"ca.pem": _pem(self._sign(self._key.public_key(), self._name, authority=True))}
        for file, name in (("server", "localhost"), ("client", client)):
            key = ec.generate_private_key(ec.SECP256R1())
            self._files[f"{file}.pem"] = _pem(self._sign(key.public_key(), _named(name)))
            self._files[f"{file}.key"] = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )

    def write(self, folder: Path) -> None:
        """Write all files."""
        for name, data in self._files.items():
            (folder / name).write_bytes(data)

    def _sign(self, key: ec.EllipticCurvePublicKey, name: x509.Name, *, authority: bool = False) -> x509.Certificate:
        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - LASTING)
            .not_valid_after(now + LASTING)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(_usage(authority=authority), critical=True)
        )
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
