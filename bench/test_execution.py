"""Execution of blocks: plain transfers against the specification, and the steps of a job.

One round is one block of a thousand: a millisecond of CPU is a microsecond for each. Compare inside
a group: a figure alone says more about the machine and its load than about the code.
"""

from collections.abc import Callable
from time import process_time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from assay.v1 import transactions_pb2 as pb
from chain.benchmark.jobs import STEPS, JobChain
from chain.execution import BlockContext, LaneBatch, Ledger
from ext.hashing import tagged_hash
from tests.chain.ledger_world import (
    ALICE,
    CHAIN,
    FUNDS,
    START_MS,
    TREASURY,
    World,
)
from tests.chain.specification.ledger import SpecificationLedger

COUNT = 1000
ROUNDS = 3
ACCOUNTS = 2_000
"""As many as the specification, which hashes all of them for each block, can bear."""

Block = tuple[BlockContext, list[LaneBatch]]
Execute = Callable[[BlockContext, list[LaneBatch]], object]


def a_block_of_transfers(world: World) -> Block:
    for index in range(COUNT):
        receiver = tagged_hash(b"bench", (index % ACCOUNTS).to_bytes(4, "little"))
        world.send(ALICE, pb.Transfer(to=receiver, amount=1))
    return world.next_block()


def measure(benchmark: BenchmarkFixture, prepare: Callable[[], tuple[Execute, Block]]) -> None:
    def setup() -> tuple[tuple[Execute, Block], dict[str, object]]:
        return prepare(), {}

    def execute(run: Execute, block: Block) -> object:
        return run(*block)

    benchmark.pedantic(execute, setup=setup, rounds=ROUNDS)  # type: ignore[no-untyped-call]


@pytest.mark.benchmark(timer=process_time, group="1000 plain transfers")
def test_transfers_by_the_specification(benchmark: BenchmarkFixture) -> None:
    world = World()
    people = dict(world.ledger.accounts())
    balances = {key: account.balance for key, account in people.items()}

    def prepare() -> tuple[Execute, Block]:
        plain = SpecificationLedger(CHAIN, world.parameters, world.set, balances, TREASURY)
        return plain.execute, a_block_of_transfers(world)

    measure(benchmark, prepare)


@pytest.mark.benchmark(timer=process_time, group="1000 plain transfers")
def test_transfers_by_the_ledger(benchmark: BenchmarkFixture) -> None:
    def prepare() -> tuple[Execute, Block]:
        world = World()
        return world.ledger.execute, a_block_of_transfers(world)

    measure(benchmark, prepare)


@pytest.mark.benchmark(timer=process_time, group="1000 jobs")
@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_all_jobs(benchmark: BenchmarkFixture, step: str) -> None:
    def prepare() -> tuple[Execute, Block]:
        chain = JobChain()
        for name, _ in chain.steps(COUNT):
            if name == step:
                break
            chain.execute(*chain.prepare())
        return chain.execute, chain.prepare()

    measure(benchmark, prepare)


@pytest.mark.benchmark(timer=process_time, group="restart")
def test_restart_with_a_hundred_thousand_accounts(benchmark: BenchmarkFixture) -> None:
    world = World()
    balances = {
        tagged_hash(b"bench", index.to_bytes(4, "little")): FUNDS for index in range(100_000)
    }
    ledger = Ledger.from_genesis(CHAIN, world.parameters, world.set, balances, TREASURY, START_MS)
    rows, chunks = list(ledger.to_records()), list(ledger.account_chunks())
    again = benchmark(Ledger.from_records, CHAIN, ledger.meta, rows, chunks)
    assert again.state_root() == ledger.state_root()
