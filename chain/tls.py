"""Mutual TLS between validators, pinned to the certificates that genesis binds to signing keys.

Each validator makes its own certificate (ECDSA P-256, self-signed, not an authority) for the name
`validator-N.assay`. There is no certificate authority to trust or to lose: a server accepts exactly
the certificates in genesis, a client trusts exactly the one of the validator it dials, and
`peer_index` says which validator is at the other end by comparing whole certificates.
"""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chain.genesis import Genesis

NAME_SUFFIX: Final = ".assay"
NOT_BEFORE: Final = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
NOT_AFTER: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
"""RFC 5280's "no well-defined expiration": a pinned certificate ends by being replaced in the set.
"""

# Without this gRPC's TLS lets a pinned certificate issue others, whatever the CA flag says.
_SIGNS_HANDSHAKES_ONLY: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


class TlsError(ValueError):
    """A certificate or key cannot be used. The message says what to do."""


def server_name(index: int) -> str:
    """The name in validator `index`'s certificate."""
    return f"validator-{index}{NAME_SUFFIX}"


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """A private key and its certificate, both PEM."""

    private_key: bytes = field(repr=False)
    certificate: bytes

    @property
    def certificate_der(self) -> bytes:
        """The certificate as genesis holds it."""
        return certificate_der(self.certificate)


def certificate_der(pem: bytes) -> bytes:
    """DER of one PEM certificate. Raises TlsError."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise TlsError(f"no PEM certificate: {error}") from error
    return certificate.public_bytes(serialization.Encoding.DER)


def certificate_pem(der: bytes) -> bytes:
    """PEM of one DER certificate. Raises TlsError."""
    try:
        certificate = x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise TlsError(f"no DER certificate: {error}") from error
    return certificate.public_bytes(serialization.Encoding.PEM)


def new_identity(index: int) -> TlsIdentity:
    """A fresh key and self-signed certificate for validator `index`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = server_name(index)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(_SIGNS_HANDSHAKES_ONLY, critical=True)
        .sign(key, hashes.SHA256())
    )
    return TlsIdentity(
        private_key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
    )


def load_identity(private_key: bytes, certificate: bytes) -> TlsIdentity:
    """An identity from two PEM files. Raises TlsError if they are not a pair."""
    try:
        key = serialization.load_pem_private_key(private_key, password=None)
        public_key = x509.load_pem_x509_certificate(certificate).public_key()
    except (ValueError, TypeError) as error:
        raise TlsError(f"no PEM key and certificate: {error}") from error
    if key.public_key() != public_key:
        raise TlsError("the private key is not the certificate's: restore the pair from one backup")
    return TlsIdentity(private_key, certificate)


def server_credentials(identity: TlsIdentity, genesis: Genesis) -> grpc.ServerCredentials:
    """For a server that talks to the validators of genesis and to nobody else."""
    roots = b"".join(certificate_pem(member.certificate) for member in genesis.validators)
    return grpc.ssl_server_credentials(
        [(identity.private_key, identity.certificate)],
        root_certificates=roots,
        require_client_auth=True,
    )


def channel_credentials(
    identity: TlsIdentity, genesis: Genesis, index: int
) -> tuple[grpc.ChannelCredentials, str]:
    """For dialling validator `index`: credentials that trust it alone, and its TLS name.

    Pass the name as the channel option `grpc.ssl_target_name_override`; `channel_options` does.
    """
    credentials = grpc.ssl_channel_credentials(
        root_certificates=certificate_pem(genesis.validators[index].certificate),
        private_key=identity.private_key,
        certificate_chain=identity.certificate,
    )
    return credentials, server_name(index)


def channel_options(index: int) -> tuple[tuple[str, str], ...]:
    """Channel options for dialling validator `index` at whatever address it has."""
    return (("grpc.ssl_target_name_override", server_name(index)),)


def peer_index(auth_context: Mapping[str, Iterable[bytes]], genesis: Genesis) -> int | None:
    """Which validator, by its exact certificate, is at the other end; None for a stranger."""
    certificates = tuple(auth_context.get("x509_pem_cert", ()))
    if len(certificates) != 1:
        return None
    try:
        return genesis.index_by_certificate.get(certificate_der(certificates[0]))
    except TlsError:
        return None
