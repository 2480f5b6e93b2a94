"""Batch payloads and signed transactions straight from the protobuf wire format.

Total and strict: any bytes either parse or raise ParseError; what parses is exactly what a
canonical serialiser writes (fields once and in order, transactions before attestations, minimal
lengths, nothing unknown), so nobody can alter a payload's bytes and keep its meaning. Bodies are
not looked into. Batches are parsed and hashed without the interpreter lock and without one Python
object a transaction.
"""

from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

BODY_BYTES_MAX: Final = 131072
ATTESTATION_BYTES_MAX: Final = 131072
TRANSACTIONS_MAX: Final = 65536
ATTESTATIONS_MAX: Final = 65536
PAYLOAD_BYTES_MAX: Final = 0x7FFFFFFF
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
TRANSACTION_TAG: Final = b"tx"
SIGNING_TAG: Final = b"tx-sign"

class ParseReason(StrEnum):
    """Why bytes were refused."""

    PAYLOAD_TOO_LONG = "payload too long"
    TRUNCATED = "truncated"
    UNEXPECTED_FIELD = "unexpected field"
    LENGTH_NOT_MINIMAL = "length not minimal"
    LENGTH_TOO_LARGE = "length too large"
    BODY_SIZE = "body size"
    PUBLIC_KEY_SIZE = "public key size"
    SIGNATURE_SIZE = "signature size"
    ATTESTATION_SIZE = "attestation size"
    TRAILING_BYTES = "trailing bytes"
    TOO_MANY_TRANSACTIONS = "too many transactions"
    TOO_MANY_ATTESTATIONS = "too many attestations"

class ParseError(ValueError):
    """Bytes that are not a canonical payload or transaction."""

    reason: ParseReason
    offset: int
    """Where the first wrong or missing byte stands, from the start of the bytes given."""

    def __init__(self, reason: ParseReason, offset: int) -> None: ...

class SignedTransaction:
    """One transaction as it stood on the wire, read-only. Made by the parsers alone."""

    @property
    def body(self) -> bytes:
        """1 to BODY_BYTES_MAX bytes, a serialised TxBody that was not looked into."""
    @property
    def public_key(self) -> bytes:
        """32 bytes."""
    @property
    def signature(self) -> bytes:
        """64 bytes, not verified."""
    @property
    def id(self) -> bytes:
        """H("tx", body, public_key), 32 bytes."""
    def signing_digest(self, chain_id: bytes) -> bytes:
        """H("tx-sign", chain_id, body), 32 bytes: what the signature covers."""

class ParsedBatch:
    """The transactions and attestations of one payload as read-only arrays, n and m rows."""

    @property
    def payload(self) -> bytes:
        """The bytes that were parsed, which the slices point into."""
    @property
    def bodies(self) -> NDArray[np.uint32]:
        """(n, 2): offset and length of each body in the payload."""
    @property
    def public_keys(self) -> NDArray[np.uint8]:
        """(n, 32)."""
    @property
    def signatures(self) -> NDArray[np.uint8]:
        """(n, 64), not verified."""
    @property
    def ids(self) -> NDArray[np.uint8]:
        """(n, 32): H("tx", body, public_key)."""
    @property
    def attestations(self) -> NDArray[np.uint32]:
        """(m, 2): offset and length of each attestation in the payload."""
    def __len__(self) -> int:
        """Number of transactions."""
    def transaction(self, index: int) -> SignedTransaction:
        """Transaction ``index`` as a value. Raises IndexError."""
    def attestation(self, index: int) -> bytes:
        """Attestation ``index``, 1 to ATTESTATION_BYTES_MAX bytes. Raises IndexError."""
    def signing_digests(self, chain_id: bytes) -> NDArray[np.uint8]:
        """(n, 32): H("tx-sign", chain_id, body) of each transaction, what its signature covers."""

def count_batch(payload: bytes) -> tuple[int, int]:
    """How many transactions and attestations a payload has, none of which is looked into.

    Raises ParseError where parse_batch would for what stands round them.
    """

def parse_batch(payload: bytes) -> ParsedBatch:
    """Parse a serialised BatchPayload. Raises ParseError; an empty payload is an empty batch."""

def parse_signed_tx(data: bytes) -> SignedTransaction:
    """Parse one serialised SignedTx. Raises ParseError."""

def transaction_id(body: bytes, public_key: bytes) -> bytes:
    """H("tx", body, public_key), 32 bytes. Raises ValueError for a key that is not 32 bytes."""

def signing_digest(chain_id: bytes, body: bytes) -> bytes:
    """H("tx-sign", chain_id, body), 32 bytes: what a transaction's signature covers."""
