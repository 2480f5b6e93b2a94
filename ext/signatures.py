"""The one place where Ed25519 signatures are checked.

Callers learn yes or no and nothing of the rule behind it, so the rule can be replaced here alone.
"""

from collections.abc import Sequence

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes) by ``public_key`` (32 bytes) covers ``message``.

    Total: a key or signature of another length is False.
    """
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        return False
    return True


def verify_many(items: Sequence[tuple[bytes, bytes, bytes]]) -> list[bool]:
    """``verify`` for each ``(public_key, message, signature)``, in order."""
    return [verify(public_key, message, signature) for public_key, message, signature in items]
