"""The ledger benchmark does the node's work, on transactions that are really signed."""

from dataclasses import replace
from pathlib import Path

import pytest

from assay.v1 import transactions_pb2 as pb
from chain.benchmark.baselines import libsodium_us, protobuf_us
from chain.benchmark.pipeline import STAGES, BenchmarkError, Gate, Measured, measure
from chain.benchmark.workload import CHAIN_ID, Workload

SMALL = Workload(
    transactions=130, accounts=40, senders=7, batch_transactions=20, block_batches=3, seed=5
)


def run(workload: Workload, directory: Path, payloads: list[bytes] | None = None) -> Measured:
    return measure(workload, payloads or list(workload.payloads()), directory, Gate())


def test_every_stage_takes_time_and_the_total_holds_them_all(tmp_path: Path) -> None:
    measured = run(SMALL, tmp_path)
    assert set(measured.cpu_s) == set(STAGES)
    assert all(measured.cpu_s[name] > 0 for name in ("verify", "execute", "commit"))
    assert measured.cpu_total_s >= sum(measured.cpu_s.values())
    assert measured.transactions == 130


def test_the_root_depends_on_the_transactions_and_not_on_how_they_are_cut(tmp_path: Path) -> None:
    one = run(SMALL, tmp_path / "one")
    again = run(SMALL, tmp_path / "again")
    together = run(replace(SMALL, waiting_batches=2), tmp_path / "together")
    other = run(replace(SMALL, seed=6), tmp_path / "other")
    assert one.execution_root == again.execution_root == together.execution_root
    assert one.execution_root != other.execution_root


def test_a_signature_that_does_not_verify_ends_the_run(tmp_path: Path) -> None:
    payloads = list(SMALL.payloads())
    damaged = pb.BatchPayload.FromString(payloads[1])
    signature = bytearray(damaged.transactions[3].signature)
    signature[5] ^= 1
    damaged.transactions[3].signature = bytes(signature)
    payloads[1] = damaged.SerializeToString()
    with pytest.raises(BenchmarkError, match="does not verify"):
        run(SMALL, tmp_path, payloads)
    with pytest.raises(ValueError, match="libsodium refuses"):
        libsodium_us(CHAIN_ID, payloads)


def test_a_transaction_without_a_receipt_ends_the_run(tmp_path: Path) -> None:
    payloads = list(SMALL.payloads())
    payloads[2] = payloads[1]
    with pytest.raises(BenchmarkError, match="110 of 130 transactions have a receipt"):
        run(SMALL, tmp_path, payloads)


def test_baselines_read_the_same_transactions() -> None:
    payloads = list(SMALL.payloads())
    assert libsodium_us(CHAIN_ID, payloads) > 0
    assert protobuf_us(payloads) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"senders": 41}, "41 senders of 40 accounts"),
        ({"batch_transactions": 0}, "at least one transaction"),
        ({"transactions": 20_000}, "334 blocks, at most 200"),
    ],
)
def test_a_workload_that_cannot_be_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)
