"""The node's stages over a workload, timed one by one."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Final

from chain.benchmark.workload import CHAIN_ID, VALIDATORS, Workload
from chain.execution import Ledger
from chain.node.worker import (
    are_rightly_signed,
    block_context,
    commit_genesis,
    commit_outcome,
    read_lanes,
    stored_ledger,
)
from chain.parameters import Parameters
from chain.store import Store
from consensus.events import Deliver, LaneIncrement
from consensus.values import ZERO_HASH, Batch, BatchHeader, Block, Tip
from ext.hashing import sha256, tagged_hash
from ext.transactions import parse_batch

STAGES: Final = ("parse", "verify", "persist", "read", "execute", "commit")
"""`read` fetches a block's batches from the store and parses them again, as the node does."""
NO_VRF_PROOF: Final = bytes(80)
NO_SIGNATURE: Final = bytes(64)
"""Of blocks and batches: one a batch, which ordering checks, and this is not ordering."""
BLOCK_INTERVAL_MS: Final = 250
GENESIS_DIGEST: Final = tagged_hash(b"ledger bench genesis")


class BenchmarkError(Exception):
    """The workload did not do what it must; its figures mean nothing."""


@dataclass(slots=True)
class Measured:
    """One pass over the whole workload, from raw payloads to a persisted root."""

    transactions: int
    cpu_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    cpu_total_s: float = 0.0
    """Of the whole process meanwhile: what background threads did is in it, too."""
    wall_s: float = 0.0
    execution_root: bytes = b""
    restart_s: float = 0.0
    """Wall time from closing the store to having its ledger back."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the CPU time of this process while the block runs."""
        started_s = process_time()
        yield
        self.cpu_s[name] += process_time() - started_s


class Gate:
    """Stands around a timed pass; several processes that measure at once share their starts."""

    def before(self) -> None:
        """Called when everything is prepared."""

    def after(self) -> None:
        """Called when the last root is persisted."""


def measure(workload: Workload, payloads: Sequence[bytes], directory: Path, gate: Gate) -> Measured:
    """Run the workload on a new store in an empty directory. Raises BenchmarkError."""
    store = Store(directory, CHAIN_ID, GENESIS_DIGEST)
    try:
        ledger = genesis_ledger(workload)
        commit_genesis(store, ledger, ZERO_HASH)
        gate.before()
        measured = _run(workload, payloads, store, ledger)
        gate.after()
    finally:
        started_s = perf_counter()
        store.close()
    with Store(directory, CHAIN_ID, GENESIS_DIGEST) as again:
        restored = stored_ledger(CHAIN_ID, again, ledger.height)
        measured.restart_s = perf_counter() - started_s
        if restored.execution_root != ledger.execution_root:
            raise BenchmarkError("the ledger that was read back has another root")
    measured.execution_root = ledger.execution_root
    return measured


def genesis_ledger(workload: Workload) -> Ledger:
    """The accounts before the first block."""
    return Ledger.from_genesis(
        CHAIN_ID,
        Parameters(),
        workload.validators(),
        workload.balances(),
        workload.treasury(),
    )


def _run(workload: Workload, payloads: Sequence[bytes], store: Store, ledger: Ledger) -> Measured:
    measured = Measured(workload.transactions)
    lanes = Lanes()
    accepted = 0
    gc.collect()
    cpu_started_s, wall_started_s = process_time(), perf_counter()
    for first in range(0, len(payloads), workload.block_batches):
        block = payloads[first : first + workload.block_batches]
        batches = [lanes.next_batch(payload) for payload in block]
        for start in range(0, len(batches), workload.waiting_batches):
            _receive(measured, store, batches[start : start + workload.waiting_batches])
        deliver = lanes.deliver(batches, ledger.height + 1, ledger.timestamp_ms)
        with measured.stage("read"):
            read = read_lanes(store, deliver)
        with measured.stage("execute"):
            outcome = ledger.execute(block_context(deliver), read)
        with measured.stage("commit"):
            commit_outcome(store, ledger, deliver, outcome)
        accepted += len(outcome.receipts)
    measured.cpu_total_s = process_time() - cpu_started_s
    measured.wall_s = perf_counter() - wall_started_s
    if accepted != workload.transactions:
        raise BenchmarkError(f"{accepted} of {workload.transactions} transactions have a receipt")
    return measured


def _receive(measured: Measured, store: Store, waiting: Sequence[Batch]) -> None:
    with measured.stage("parse"):
        parsed = [parse_batch(batch.payload) for batch in waiting]
    with measured.stage("verify"):
        valid = are_rightly_signed(CHAIN_ID, parsed)
    if not all(valid):
        raise BenchmarkError("a signature of the workload does not verify")
    with measured.stage("persist"):
        for batch in waiting:
            store.put_batch(batch)


class Lanes:
    """The lanes' hash chains, and blocks over them. Payloads go to the lanes in turns."""

    def __init__(self) -> None:
        self._tips: dict[int, Tip] = {}
        self._count = 0
        self._parent = ZERO_HASH

    def next_batch(self, payload: bytes) -> Batch:
        """The payload as the next batch of the lane whose turn it is."""
        lane = self._count % VALIDATORS
        self._count += 1
        tip = self._tips.get(lane)
        header = BatchHeader(
            epoch=0,
            lane=lane,
            sequence=1 if tip is None else tip.sequence + 1,
            parent=ZERO_HASH if tip is None else tip.digest,
            payload_root=sha256(payload),
        )
        self._tips[lane] = Tip(lane, header.sequence, header.digest())
        return Batch(header, NO_SIGNATURE, payload)

    def deliver(self, batches: Sequence[Batch], height: int, after_ms: int) -> Deliver:
        """A final block over these new batches."""
        block = Block(
            epoch=0,
            view=height,
            height=height,
            parent_view=height - 1,
            parent=self._parent,
            proposer=height % VALIDATORS,
            timestamp_ms=after_ms + BLOCK_INTERVAL_MS,
            cut=tuple(self._tips[lane] for lane in sorted(self._tips)),
            vrf_proof=NO_VRF_PROOF,
            executed_height=0,
            executed_root=ZERO_HASH,
        )
        self._parent = block.digest()
        increments = []
        for lane in range(VALIDATORS):
            headers = [batch.header for batch in batches if batch.header.lane == lane]
            if headers:
                digests = tuple(header.digest() for header in headers)
                increments.append(
                    LaneIncrement(lane, headers[0].sequence, headers[-1].sequence, digests)
                )
        return Deliver(block, self._parent, None, tuple(increments))
