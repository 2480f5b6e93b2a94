"""Bodies against the protobuf library, and runs of transfers against their Python model.

A body is plain exactly if the library reads nothing but transfers to whole keys in it and writes
the same bytes; then both read the same fields. Requests and results are taken exactly if they are
as canonical and Python's own rules take them. A run's rows, receipts, events, ids and burned fees
are the model's, whatever the mix of senders, receivers and refusals.
"""

from collections.abc import Iterator
from random import Random

from assay.v1 import transactions_pb2 as pb
from tests.chain.execution.parsed import assert_parsed_alike
from tests.chain.specification.operations import a_job_operation
from tests.ext.test_bodies import CHAIN, assert_agrees
from tests.ext.test_transfers import (
    HEIGHT,
    KEYS,
    U64_MAX,
    Fees,
    Signed,
    body_of,
    execute_both,
    stake_of,
)
from tests.fuzz.harness import Target, mutated

FRAGMENTS = (
    *(bytes([value]) for value in b"\x0a\x10\x19\x20\x2a\x32\x08\x00\x01\x20\x24\x80\xff"),
    *(b"\x80\x00", b"\xff" * 10, b"\x0a\x20", b"\x2a\x24\x0a\x22\x0a\x20" + bytes(32), bytes(8)),
)
HEIGHTS = (HEIGHT, HEIGHT, HEIGHT, HEIGHT - 1, HEIGHT + 256, HEIGHT + 257, 0, U64_MAX)
SEED_BYTES = 8


def _number(source: Random) -> int:
    return source.choice((0, 1, source.randrange(300), source.getrandbits(64), U64_MAX))


def _operation(source: Random) -> pb.Op:
    if source.randrange(8) == 0:
        return pb.Op(stake=pb.Stake(amount=_number(source)))
    receiver = source.randbytes(32 if source.randrange(16) else source.randrange(40))
    return pb.Op(transfer=pb.Transfer(to=receiver, amount=_number(source)))


def bodies(source: Random) -> Iterator[bytes]:
    """Bodies, most of them plain, with a few edits."""
    while True:
        body = pb.TxBody(
            chain_id=CHAIN if source.randrange(16) else "another",
            valid_until_height=_number(source),
            salt=_number(source),
            max_fee=_number(source),
            ops=[_operation(source) for _ in range(source.choice((0, 1, 1, 2, 3, 256, 257)))],
        )
        data = mutated(source, body.SerializeToString(deterministic=True), FRAGMENTS)
        if data:
            yield data


def check_body(data: bytes) -> None:
    """Alone in its batch."""
    assert_agrees(data)


def job_bodies(source: Random) -> Iterator[bytes]:
    """Bodies of one operation that asks for a job or answers one, with a few edits or none."""
    while True:
        body = pb.TxBody(
            chain_id=CHAIN,
            valid_until_height=_number(source),
            salt=_number(source),
            max_fee=_number(source),
            ops=[a_job_operation(source, bytes(32), bytes(32))],
        ).SerializeToString(deterministic=True)
        yield body if source.randrange(4) == 0 else mutated(source, body, FRAGMENTS) or body


def check_job_body(data: bytes) -> None:
    """Alone in its batch."""
    assert_parsed_alike(data)


def runs(source: Random) -> Iterator[bytes]:
    """Seeds: a run of transactions is drawn from each."""
    while True:
        yield source.randbytes(SEED_BYTES)


def _transaction(source: Random) -> Signed:
    sender = source.choice(KEYS)
    if source.randrange(12) == 0:
        return sender, stake_of(1)
    transfers = [
        (source.choice(KEYS), source.randrange(80)) for _ in range(source.choice((1, 1, 1, 2, 5)))
    ]
    return sender, body_of(
        *transfers,
        valid_until_height=source.choice(HEIGHTS),
        max_fee=source.choice((1_000_000, 1_000_000, 1_000_000, 12, 13, 0)),
        salt=source.randrange(3),
    )


def check_run(data: bytes) -> None:
    """A batch drawn from the bytes, in pieces."""
    source = Random(data)
    rows = {
        key: (source.randrange(1, 500), source.randrange(2), source.randrange(2), 1)
        for key in source.sample(KEYS, source.randrange(len(KEYS)))
    }
    transactions = [_transaction(source) for _ in range(source.randrange(80))]
    fees = Fees(
        source.choice((0, 1, 10)),
        source.choice((0, 3)),
        source.choice((0, 0, 1)),
        source.randrange(10_001),
    )
    cuts = [source.randrange(80) for _ in range(source.randrange(3))]
    execute_both(rows, transactions, fees, source.choice(KEYS), cuts)


BODIES = Target("bodies", bodies, check_body)
JOB_BODIES = Target("job-bodies", job_bodies, check_job_body)
RUNS = Target("runs", runs, check_run)
