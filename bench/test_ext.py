"""The native hot path against what Python would otherwise use, in the same run.

Each group holds a baseline (hashlib, PyNaCl, the protobuf library) and ours: compare inside a
group; a figure alone says more about the machine and its load than about the code.
"""

import hashlib
import random

import numpy as np
import pytest
from nacl.bindings import crypto_sign_open
from nacl.signing import SigningKey
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from assay.v1.transactions_pb2 import BatchPayload, SignedTx
from ext import hashing, merkle, signatures, transactions

TRANSACTIONS = 1000
SINGLES = 100
BATCH_SIZES = (16, 64, 256, 1024, 4096)

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
