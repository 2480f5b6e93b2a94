"""What the same transactions cost the usual way: libsodium one by one, protobuf field by field."""

from collections.abc import Sequence
from time import process_time

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from assay.v1 import transactions_pb2 as pb
from ext.transactions import signing_digest


def libsodium_us(chain_id: str, payloads: Sequence[bytes]) -> float:
    """CPU microseconds a signature: digest and `crypto_sign_verify_detached`, through PyNaCl.

    Raises ValueError for a signature that does not verify.
    """
    signed = [
        one for payload in payloads for one in pb.BatchPayload.FromString(payload).transactions
    ]
    chain = chain_id.encode()
    started = process_time()
    for one in signed:
        try:
            VerifyKey(one.public_key).verify(signing_digest(chain, one.body), one.signature)
        except BadSignatureError as error:
            raise ValueError("libsodium refuses a signature of this workload") from error
    return (process_time() - started) * 1e6 / len(signed)


def protobuf_us(payloads: Sequence[bytes]) -> float:
    """CPU microseconds to parse a transaction and its body, and to read each of their fields."""
    read = []
    started = process_time()
    for payload in payloads:
        for signed in pb.BatchPayload.FromString(payload).transactions:
            body = pb.TxBody.FromString(signed.body)
            operations = [(op.transfer.to, op.transfer.amount) for op in body.ops]
            limits = (body.chain_id, body.valid_until_height, body.salt, body.max_fee)
            read.append((signed.public_key, signed.signature, limits, operations))
    return (process_time() - started) * 1e6 / len(read)
