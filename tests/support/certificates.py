"""Certificates for servers of tests that speak TLS: an authority of the test's own, and what it signs."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACK: Final = ("localhost", "127.0.0.1")


class Authority:
    """A CA. `file` is what a client has to trust."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder: Final = folder
        self._key: Final = ec.generate_private_key(ec.SECP256R1())
        self._name: Final = _common_name(name)
        made = _certificate(self._name, self._name, self._key.public_key())
        made = _as_authority(made)
        self.file: Final = folder / f"{name}.pem"
        self.file.write_bytes(_pem_certificate(made, self._key))

    def sign_server(self, *names: str) -> ssl.SSLContext:
        """What a server with these names, or addresses, speaks TLS with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.write_server(*names))
        return context

    def write_server(self, *names: str) -> Path:
        """The file with such a server's key and certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(_common_name(names[0]), self._name, key.public_key())
        made = made.add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        both = self._folder / f"{self.file.stem}-{names[0]}.pem"
        both.write_bytes(_pem_key(key) + _pem_certificate(made, self._key))
        return both


def server_context(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """What a server at 127.0.0.1 speaks TLS with, and its certificate, which it has signed itself: a client has to
    trust that file. The key lies beside it, in key.pem.
    """
    key, name = ec.generate_private_key(ec.SECP256R1()), _common_name("127.0.0.1")
    made = _certificate(name, name, key.public_key())
    made = made.add_extension(x509.SubjectAlternativeName([_alternative("127.0.0.1")]), critical=False)
    made = _as_authority(made)
    trusted, private = folder / "certificate.pem", folder / "key.pem"
    trusted.write_bytes(_pem_certificate(made, key))
    private.write_bytes(_pem_key(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return context, trusted


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _as_authority(made: x509.CertificateBuilder) -> x509.CertificateBuilder:
    # Signatures, also of certificates and of lists of revoked ones.
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return made.add_extension(usage, critical=True)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem_certificate(made: x509.CertificateBuilder, issuer: ec.EllipticCurvePrivateKey) -> bytes:
    # Python 3.13 verifies by RFC 5280 to the letter: each certificate names its issuer's key.
    issuers = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
    made = made.add_extension(issuers, critical=False)
    return made.sign(issuer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
