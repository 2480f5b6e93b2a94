"""Mutual TLS between validators, pinned to the certificates that are bound to their signing keys.

Each validator makes its own certificate (ECDSA P-256, self-signed, not an authority), for the name
`validator-N.assay` if it knows its number. There is no certificate authority to trust or to lose: a
server accepts exactly the certificates of its contacts, a client trusts exactly the one of the
validator it dials, whatever name is in it, and `peer_index` says which validator is at the other
end by comparing whole certificates.
"""

import datetime
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chain.contacts import Contact, Contacts

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


logger = logging.getLogger(__name__)


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
        raise TlsError(
            "no PEM key and certificate (tls_key, tls_certificate): restore the pair from a backup"
        ) from error
    if key.public_key() != public_key:
        raise TlsError("the private key is not the certificate's: restore the pair from one backup")
    return TlsIdentity(private_key, certificate)


def server_credentials(identity: TlsIdentity, contacts: Contacts) -> grpc.ServerCredentials:
    """For a server that talks to its contacts, as they are at each handshake, and to no others."""
    seen = contacts.all

    def configuration() -> grpc.ServerCertificateConfiguration:
        roots = b"".join(_roots(seen.values()))
        return grpc.ssl_server_certificate_configuration(
            [(identity.private_key, identity.certificate)], root_certificates=roots
        )

    def newer() -> grpc.ServerCertificateConfiguration | None:
        nonlocal seen
        if contacts.all is seen:
            return None
        seen = contacts.all
        return configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        newer,  # type: ignore[arg-type]  # the stubs do not know that None says "as before"
        require_client_authentication=True,
    )


def _roots(contacts: Iterable[Contact]) -> Iterator[bytes]:
    """Their certificates, PEM, without those that are none."""
    for contact in contacts:
        try:
            yield certificate_pem(contact.certificate)
        except TlsError as error:
            logger.warning("validator %d cannot call: %s", contact.index, error)


def channel_credentials(
    identity: TlsIdentity, contact: Contact
) -> tuple[grpc.ChannelCredentials, str]:
    """For dialling a validator: credentials that trust it alone, and its TLS name.

    Pass the name as the channel option `grpc.ssl_target_name_override`; `channel_options` does.
    Raises TlsError.
    """
    credentials = grpc.ssl_channel_credentials(
        root_certificates=certificate_pem(contact.certificate),
        private_key=identity.private_key,
        certificate_chain=identity.certificate,
    )
    return credentials, certificate_name(contact.certificate)


def channel_options(contact: Contact) -> tuple[tuple[str, str], ...]:
    """Channel options for dialling a validator at whatever address it has. Raises TlsError."""
    return (("grpc.ssl_target_name_override", certificate_name(contact.certificate)),)


def certificate_name(der: bytes) -> str:
    """The first DNS name in a DER certificate. Raises TlsError if it has none."""
    try:
        names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        return names.value.get_values_for_type(x509.DNSName)[0]
    except (ValueError, x509.ExtensionNotFound, IndexError) as error:
        raise TlsError(f"a certificate without a DNS name: {error}") from error


def peer_index(auth_context: Mapping[str, Iterable[bytes]], contacts: Contacts) -> int | None:
    """Which validator, by its exact certificate, is at the other end; None for a stranger."""
    certificates = tuple(auth_context.get("x509_pem_cert", ()))
    if len(certificates) != 1:
        return None
    try:
        return contacts.index_of(certificate_der(certificates[0]))
    except TlsError:
        return None
