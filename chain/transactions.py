"""Transactions as the ledger sees them: signed body bytes in, a checked value out."""

from collections.abc import Sequence
from dataclasses import dataclass

from nacl.signing import SigningKey

from assay.v1 import transactions_pb2 as pb


@dataclass(frozen=True, slots=True)
class Transaction:
    """A decoded transaction whose signature has been, or will be, checked by the caller."""

    id: bytes
    sender: bytes
    body: pb.TxBody
    body_bytes: int
    """Length of the signed body, which the fee counts."""
    op_bytes: tuple[bytes, ...]
    """Each operation's own message (e.g. RequestInference), exactly as signed."""


def signing_message(chain_id: str, body: bytes) -> bytes:
    """The 32 bytes an account signs."""
    raise NotImplementedError


def decode_transaction(chain_id: str, body: bytes, public_key: bytes) -> Transaction:
    """Check limits, chain and shape; the signature is not looked at. Raises Rejection."""
    raise NotImplementedError


def check_signed(chain_id: str, body: bytes, public_key: bytes, signature: bytes) -> Transaction:
    """`decode_transaction`, and the signature. Raises Rejection."""
    raise NotImplementedError


def sign_transaction(
    key: SigningKey,
    chain_id: str,
    operations: Sequence[pb.Op],
    valid_until_height: int,
    max_fee: int,
    salt: int,
) -> pb.SignedTx:
    """A signed transaction."""
    raise NotImplementedError


def make_operation(message: object) -> pb.Op:
    """Wrap a Transfer, Stake, … into an Op."""
    raise NotImplementedError
