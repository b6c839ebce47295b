"""Certificates for tests: an authority, and what it issues for names, in cert-manager's layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class TestAuthority:
    """An authority of one's own."""

    __test__ = False

    def __init__(self, name: str = "tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._signed(self._name, self._key.public_key(), days=2, ca=True)

    @property
    def pem(self) -> bytes:
        """The authority's own certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def _signed(
        self,
        subject: x509.Name,
        public: ec.EllipticCurvePublicKey,
        *,
        days: float,
        names: Sequence[str] = (),
        ca: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=9))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if ca:
            usage = x509.KeyUsage(*[i in (0, 5, 6) for i in range(9)])
            made = made.add_extension(usage, critical=True).add_extension(
                x509.SubjectKeyIdentifier.from_public_key(public), critical=False
            )
        if names:
            alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            made = made.add_extension(alternatives, critical=False)
        return made.sign(self._key, hashes.SHA256())

    def issue(self, *names: str, days: float = 1) -> dict[str, bytes]:
        """Return a Secret's data: a new certificate for names; ``days`` may be negative."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._signed(x509.Name([]), key.public_key(), days=days, names=names)
        return {
            "tls.crt": leaf.public_bytes(serialization.Encoding.PEM),
            "tls.key": key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            "ca.crt": self.pem,
        }


def mount(data: dict[str, bytes], folder: Path) -> Path:
    """Write a Secret's data as the kubelet does: each file is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in data.items():
        (folder / f".{name}").write_bytes(content)
        os.replace(folder / f".{name}", folder / name)
    return folder
