"""The native hot path against what Python would otherwise use, in the same run.

Each group holds a baseline (hashlib, PyNaCl, the protobuf library) and ours: compare inside a
group; a figure alone says more about the machine and its load than about the code.
"""

import hashlib
import random
import struct
from collections.abc import Callable

import numpy as np
import pytest
from nacl.bindings import crypto_sign_open
from nacl.signing import SigningKey
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from assay.v1.transactions_pb2 import BatchPayload, Op, SignedTx, Transfer, TxBody
from ext import hashing, merkle, signatures, transactions
from ext.bodies import Bodies, parse_bodies
from ext.ledger import AccountTable, IdWindow
from ext.transfers import RunOutput, TransferRules, run

TRANSACTIONS = 1000
SINGLES = 100
BATCH_SIZES = (16, 64, 256, 1024, 4096)
CHAIN_ID = b"assay-bench"
ACCOUNTS = (100_000, 1_000_000)
DIRTY_ROWS = 8_192
TRANSFERS = 10_000
BALANCE = 10**12

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def signed() -> Arrays:
    """Distinct keys, messages of 32 bytes, honest signatures."""
    source = random.Random(1)
    keys = [SigningKey(source.randbytes(32)) for _ in range(max(BATCH_SIZES))]
    messages = [source.randbytes(32) for _ in keys]
    columns = (
        [bytes(key.verify_key) for key in keys],
        messages,
        [key.sign(message).signature for key, message in zip(keys, messages, strict=True)],
    )
    public_keys, rows, made = (
        np.frombuffer(b"".join(column), dtype=np.uint8).reshape(len(keys), -1) for column in columns
    )
    return public_keys, rows, made


@pytest.fixture(scope="module")
def payload() -> bytes:
    source = random.Random(2)
    return BatchPayload(
        transactions=[
            SignedTx(
                body=source.randbytes(120),
                public_key=source.randbytes(32),
                signature=source.randbytes(64),
            )
            for _ in range(TRANSACTIONS)
        ]
    ).SerializeToString()


@pytest.mark.benchmark(group="100 signatures one by one")
def test_signatures_pynacl(benchmark: BenchmarkFixture, signed: Arrays) -> None:
    rows = [tuple(part[i].tobytes() for part in signed) for i in range(SINGLES)]
    benchmark(lambda: [crypto_sign_open(made + message, key) for key, message, made in rows])


@pytest.mark.benchmark(group="100 signatures one by one")
def test_signatures_one_by_one(benchmark: BenchmarkFixture, signed: Arrays) -> None:
    rows = [tuple(part[i].tobytes() for part in signed) for i in range(SINGLES)]
    assert all(benchmark(lambda: [signatures.verify(*row) for row in rows]))


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.benchmark(group="one batch of signatures")
def test_signatures_batch(benchmark: BenchmarkFixture, signed: Arrays, size: int) -> None:
    columns = [part[:size] for part in signed]
    assert benchmark(lambda: signatures.verify_batch(*columns)).all()
    if benchmark.stats is not None:
        benchmark.extra_info["us_per_signature"] = benchmark.stats["min"] / size * 1e6


@pytest.mark.benchmark(group="hash 1 MiB")
@pytest.mark.parametrize("path", ["hashlib", *hashing.implementations()])
def test_sha256(benchmark: BenchmarkFixture, path: str) -> None:
    data = random.Random(3).randbytes(1 << 20)
    functions = {
        "hashlib": lambda: hashlib.sha256(data).digest(),
        "native": lambda: hashing.sha256_native(data),
        "portable": lambda: hashing.sha256_portable(data),
    }
    assert benchmark(functions[path]) == hashlib.sha256(data).digest()


@pytest.mark.benchmark(group="1000 transactions from the wire")
def test_payload_protobuf(benchmark: BenchmarkFixture, payload: bytes) -> None:
    def read() -> int:
        message = BatchPayload.FromString(payload)
        return sum(len(tx.body + tx.public_key + tx.signature) for tx in message.transactions)

    assert benchmark(read) == 216 * TRANSACTIONS


@pytest.mark.benchmark(group="1000 transactions from the wire")
def test_payload_with_ids(benchmark: BenchmarkFixture, payload: bytes) -> None:
    assert len(benchmark(lambda: transactions.parse_batch(payload))) == TRANSACTIONS


@pytest.mark.benchmark(group="root of 10000 leaves")
def test_merkle_root(benchmark: BenchmarkFixture) -> None:
    leaves = [random.Random(4).randbytes(32)] * 10_000
    assert len(benchmark(lambda: merkle.root(leaves))) == 32


def keys_of(accounts: int) -> list[bytes]:
    source = random.Random(5)
    return [source.randbytes(32) for _ in range(accounts)]


def table_of(keys: list[bytes]) -> AccountTable:
    amounts = struct.pack("<4Q", BALANCE, 0, 0, 0)
    table = AccountTable(1)
    table.load(
        b"".join(struct.pack("<I", number) + key + amounts for number, key in enumerate(keys))
    )
    return table


@pytest.fixture(scope="module", params=ACCOUNTS, ids=[f"{count} accounts" for count in ACCOUNTS])
def ledger(request: pytest.FixtureRequest) -> tuple[list[bytes], AccountTable]:
    """Keys, and a table that holds each of them."""
    keys = keys_of(request.param)
    return keys, table_of(keys)


def signed_transfers(keys: list[bytes], count: int) -> bytes:
    """A payload of transfers between random accounts; the signatures are not looked at here."""
    source = random.Random(6)
    return BatchPayload(
        transactions=[
            SignedTx(
                body=TxBody(
                    chain_id=CHAIN_ID.decode(),
                    valid_until_height=100,
                    salt=source.getrandbits(64) | 1,
                    max_fee=100_000,
                    ops=[Op(transfer=Transfer(to=source.choice(keys), amount=5))],
                ).SerializeToString(),
                public_key=source.choice(keys),
                signature=bytes(64),
            )
            for _ in range(count)
        ]
    ).SerializeToString()


def tell_share(benchmark: BenchmarkFixture, name: str, count: int) -> None:
    """Add the time of one in `count` to the report."""
    if benchmark.stats is not None:
        benchmark.extra_info[name] = benchmark.stats["min"] / count * 1e6


@pytest.mark.benchmark(group="1000 accounts read")
def test_accounts_in_a_dict(
    benchmark: BenchmarkFixture, ledger: tuple[list[bytes], AccountTable]
) -> None:
    keys, _ = ledger
    rows = dict.fromkeys(keys, (BALANCE, 0, 0, 0))
    wanted = random.Random(7).sample(keys, 1_000)
    benchmark(lambda: [rows.get(key) for key in wanted])


@pytest.mark.benchmark(group="1000 accounts read")
def test_accounts_get(
    benchmark: BenchmarkFixture, ledger: tuple[list[bytes], AccountTable]
) -> None:
    keys, table = ledger
    wanted = random.Random(7).sample(keys, 1_000)
    benchmark(lambda: [table.get(key) for key in wanted])


@pytest.mark.benchmark(group="1000 accounts written")
def test_accounts_put(
    benchmark: BenchmarkFixture, ledger: tuple[list[bytes], AccountTable]
) -> None:
    keys, table = ledger
    wanted = random.Random(7).sample(keys, 1_000)

    def write() -> None:
        for key in wanted:
            table.put(key, BALANCE - 1, 0, 0, 0)

    benchmark.pedantic(write, teardown=lambda: table.rollback(0), rounds=20)  # type: ignore[no-untyped-call]


@pytest.mark.benchmark(group=f"root after {DIRTY_ROWS} changed accounts")
def test_commit(benchmark: BenchmarkFixture, ledger: tuple[list[bytes], AccountTable]) -> None:
    keys, table = ledger
    source = random.Random(8)

    def change() -> None:
        for key in source.sample(keys, DIRTY_ROWS):
            table.put(key, source.randrange(1, BALANCE), 0, 0, 0)

    benchmark.pedantic(table.commit, setup=change, rounds=10)  # type: ignore[no-untyped-call]
    tell_share(benchmark, "us_per_row", DIRTY_ROWS)


@pytest.mark.benchmark(group="bodies of 1000 transfers")
def test_bodies_protobuf(benchmark: BenchmarkFixture) -> None:
    batch = transactions.parse_batch(signed_transfers(keys_of(100), TRANSACTIONS))
    encoded = [batch.transaction(index).body for index in range(TRANSACTIONS)]

    def read() -> int:
        bodies = map(TxBody.FromString, encoded)
        return sum(operation.transfer.amount for body in bodies for operation in body.ops)

    assert benchmark(read) == 5 * TRANSACTIONS


@pytest.mark.benchmark(group="bodies of 1000 transfers")
def test_bodies(benchmark: BenchmarkFixture) -> None:
    batch = transactions.parse_batch(signed_transfers(keys_of(100), TRANSACTIONS))
    bodies = benchmark(lambda: parse_bodies(batch, CHAIN_ID))
    assert bodies.amounts.sum() == 5 * TRANSACTIONS


@pytest.mark.benchmark(group=f"{TRANSFERS} transfers, new memory each time")
def test_run(benchmark: BenchmarkFixture, ledger: tuple[list[bytes], AccountTable]) -> None:
    keys, table = ledger
    batch = transactions.parse_batch(signed_transfers(keys, TRANSFERS))
    bodies = parse_bodies(batch, CHAIN_ID)
    execute = runner(table, bodies, keys[0])
    benchmark.pedantic(execute, teardown=lambda *_: table.rollback(0), rounds=20)  # type: ignore[no-untyped-call]
    tell_share(benchmark, "us_per_transfer", TRANSFERS)


def runner(table: AccountTable, bodies: Bodies, owner: bytes) -> Callable[[], RunOutput]:
    """Runs all bodies as one block on the table, with a window of its own."""
    rules = TransferRules(
        height=50,
        window_blocks=256,
        fee_per_transaction=10_000,
        fee_per_operation=1_000,
        fee_per_byte=10,
        fee_burn_bps=5_000,
        accounts_max=1 << 30,
    )

    def execute() -> RunOutput:
        output = RunOutput()
        assert run(table, IdWindow(256), bodies, 0, len(bodies), rules, owner, output) == len(
            bodies
        )
        assert output.events == len(bodies)
        return output

    return execute


@pytest.mark.benchmark(group=f"roots over {TRANSFERS} receipts and events")
def test_leaf_roots(benchmark: BenchmarkFixture) -> None:
    keys = keys_of(1_000)
    bodies = parse_bodies(transactions.parse_batch(signed_transfers(keys, TRANSFERS)), CHAIN_ID)
    output = runner(table_of(keys), bodies, keys[0])()
    benchmark(lambda: (output.receipts_root(), output.events_root()))
    tell_share(benchmark, "us_per_transfer", TRANSFERS)
