"""Only the validators of genesis reach each other, and each knows whom it has reached."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chain.contacts import Contact, Contacts
from chain.tls import (
    TlsError,
    TlsIdentity,
    certificate_pem,
    channel_credentials,
    channel_options,
    load_identity,
    new_identity,
    peer_index,
    server_credentials,
    server_name,
)
from tests.builders import contact, contacts, genesis, tls_identity

METHOD = "/test.Peer/WhoAmI"
DEADLINE_S = 60


@asynccontextmanager
async def served_by(identity: TlsIdentity, known: Contacts | None = None) -> AsyncIterator[int]:
    """A server with this identity on loopback; yields its port."""
    pinned = known or contacts()

    async def who_am_i(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        index = peer_index(context.auth_context(), pinned)
        return b"stranger" if index is None else str(index).encode()

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(who_am_i)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Peer", {"WhoAmI": handler}),)
    )
    port = server.add_secure_port("127.0.0.1:0", server_credentials(identity, pinned))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace=None)


async def ask(port: int, credentials: grpc.ChannelCredentials, index: int) -> bytes:
    async with grpc.aio.secure_channel(
        f"127.0.0.1:{port}", credentials, options=channel_options(contact(index))
    ) as channel:
        call: Any = channel.unary_unary(METHOD)
        reply: bytes = await call(b"", timeout=DEADLINE_S)
        return reply


async def refusal(port: int, credentials: grpc.ChannelCredentials, index: int) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(port, credentials, index)
    return caught.value.code()


async def test_each_validator_is_recognised_by_its_certificate() -> None:
    async with served_by(tls_identity(0)) as port:
        for index in (1, 2, 3):
            credentials, name = channel_credentials(tls_identity(index), contact(0))
            assert name == "validator-0.assay"
            assert await ask(port, credentials, 0) == str(index).encode()


async def test_a_stranger_is_refused() -> None:
    async with served_by(tls_identity(0)) as port:
        credentials, _ = channel_credentials(new_identity(1), contact(0))
        assert await refusal(port, credentials, 0) is grpc.StatusCode.UNAVAILABLE


async def test_a_validator_cannot_issue_certificates_for_others() -> None:
    issuer = x509.load_pem_x509_certificate(tls_identity(3).certificate)
    issuer_key = serialization.load_pem_private_key(tls_identity(3).private_key, None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, server_name(1))])
    issued = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(issuer.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(server_name(1))]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    forged = TlsIdentity(
        private_key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate=issued.public_bytes(serialization.Encoding.PEM) + tls_identity(3).certificate,
    )
    async with served_by(tls_identity(0)) as port:
        credentials, _ = channel_credentials(forged, contact(0))
        assert await refusal(port, credentials, 0) is grpc.StatusCode.UNAVAILABLE


async def test_a_client_without_a_certificate_is_refused() -> None:
    async with served_by(tls_identity(0)) as port:
        root = certificate_pem(genesis().validators[0].certificate)
        credentials = grpc.ssl_channel_credentials(root_certificates=root)
        assert await refusal(port, credentials, 0) is grpc.StatusCode.UNAVAILABLE


async def test_a_client_without_tls_is_refused() -> None:
    async with (
        served_by(tls_identity(0)) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call: Any = channel.unary_unary(METHOD)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=DEADLINE_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_that_is_another_validator_is_refused() -> None:
    async with served_by(tls_identity(2)) as port:
        credentials, _ = channel_credentials(tls_identity(1), contact(0))
        assert await refusal(port, credentials, 0) is grpc.StatusCode.UNAVAILABLE


async def test_a_server_that_pretends_to_be_a_validator_is_refused() -> None:
    async with served_by(new_identity(0)) as port:
        credentials, _ = channel_credentials(tls_identity(1), contact(0))
        assert await refusal(port, credentials, 0) is grpc.StatusCode.UNAVAILABLE


async def test_many_calls_share_a_channel() -> None:
    async with served_by(tls_identity(0)) as port:
        credentials, _ = channel_credentials(tls_identity(3), contact(0))
        async with grpc.aio.secure_channel(
            f"127.0.0.1:{port}", credentials, options=channel_options(contact(0))
        ) as channel:
            call: Any = channel.unary_unary(METHOD)
            replies = await asyncio.gather(*(call(b"", timeout=DEADLINE_S) for _ in range(50)))
    assert set(replies) == {b"3"}


async def test_who_becomes_a_contact_is_let_in_and_who_is_one_no_more_is_not() -> None:
    known = contacts()
    newcomer = new_identity(7)
    credentials, _ = channel_credentials(newcomer, contact(0))
    old, _ = channel_credentials(tls_identity(3), contact(0))
    async with served_by(tls_identity(0), known) as port:
        assert await refusal(port, credentials, 0) is grpc.StatusCode.UNAVAILABLE
        remaining = [known.all[index] for index in (0, 1, 2)]
        known.replace([*remaining, Contact(7, "127.0.0.1:1", newcomer.certificate_der)])
        assert await ask(port, credentials, 0) == b"7"
        assert await refusal(port, old, 0) is grpc.StatusCode.UNAVAILABLE


async def test_nobody_shuts_a_validator_out_by_taking_its_name() -> None:
    known = contacts()
    double = new_identity(1)
    known.replace([Contact(9, "127.0.0.1:1", double.certificate_der), *known.all.values()])
    credentials, _ = channel_credentials(tls_identity(1), contact(0))
    of_double, _ = channel_credentials(double, contact(0))
    async with served_by(tls_identity(0), known) as port:
        assert await ask(port, credentials, 0) == b"1"
        assert await ask(port, of_double, 0) == b"9"


async def test_a_contact_with_a_broken_certificate_shuts_nobody_out() -> None:
    known = contacts()
    known.replace([*known.all.values(), Contact(9, "127.0.0.1:1", b"nonsense")])
    credentials, _ = channel_credentials(tls_identity(1), contact(0))
    async with served_by(tls_identity(0), known) as port:
        assert await ask(port, credentials, 0) == b"1"


def test_a_call_without_exactly_one_certificate_is_a_strangers() -> None:
    pem = tls_identity(1).certificate
    assert peer_index({"x509_pem_cert": [pem]}, contacts()) == 1
    assert peer_index({}, contacts()) is None
    assert peer_index({"x509_pem_cert": []}, contacts()) is None
    assert peer_index({"x509_pem_cert": [pem, pem]}, contacts()) is None
    assert peer_index({"x509_pem_cert": [b"nonsense"]}, contacts()) is None
    assert peer_index({"x509_pem_cert": [new_identity(1).certificate]}, contacts()) is None


def test_a_key_must_belong_to_its_certificate() -> None:
    one, other = new_identity(0), new_identity(0)
    assert load_identity(one.private_key, one.certificate) == one
    with pytest.raises(TlsError, match="is not the certificate's"):
        load_identity(one.private_key, other.certificate)
    with pytest.raises(TlsError, match="no PEM key and certificate"):
        load_identity(b"nonsense", one.certificate)
    with pytest.raises(TlsError, match="no PEM key and certificate"):
        load_identity(one.private_key, b"nonsense")


def test_a_private_key_is_not_shown() -> None:
    assert "PRIVATE" not in repr(tls_identity(0))
    assert server_name(7) == "validator-7.assay"
