"""The explorer's answers, from the node's own store and ledger.

What everybody asks for (standing, jobs, models, validators) is read at most once a second, and by
one reader at a time: a thousand open pages cost the ledger's thread what one does.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import numpy as np

from assay.v1 import node_pb2
from chain import genesis as genesis_file
from chain import receipt_files
from chain.events import Event, EventKind
from chain.execution.choices import WHY
from chain.execution.choices import Standing as OfferStanding
from chain.explorer.values import (
    address_value,
    message_value,
    ruling_value,
    transaction_value,
)
from chain.leaves import PackedLeaves
from chain.node.inference import FINAL_STATUSES
from chain.node.node import Node
from chain.node.services import appeal_of
from chain.node.views import (
    block_view,
    explanation,
    job_view,
    model_view,
    offer_view,
    settled_job_view,
    standings_view,
)
from chain.receipts import build_receipt, parse_request
from chain.records import (
    JOB_LEAF,
    TRANSACTION_LEAF,
    Job,
    JobReceipt,
    JobStatus,
    TransactionReceipt,
)
from chain.rejections import Rejection, RejectionReason
from chain.standings import Standing, standings
from chain.store import Store
from chain.track_records import records
from consensus.wire import DecodeError, decode

LIST_MAX: Final = 100
"""Elements of any list that a caller may ask for."""
JOBS_SHOWN: Final = 50
BLOCK_ITEMS_MAX: Final = 200
"""Transactions, and events, of one block that are shown."""
SEARCHED_BLOCKS_MAX: Final = 200
"""Blocks that a list of transactions looks through: most may be empty."""
HISTORY_BLOCKS_MAX: Final = 128
"""Blocks after its request in which a job's steps are looked for."""
CERTIFIED_BLOCKS: Final = 100
"""The newest blocks whose signers are counted."""
KEPT_S: Final = 1.0
GENESIS_KEPT_S: Final = float("inf")
EVENT_LEAF: Final = b"E"


class Kept:
    """One reading that many ask for: read again once it is old, by the first who asks."""

    def __init__(
        self, read: Callable[[], Awaitable[Any]], kept_s: float, clock_s: Callable[[], float]
    ) -> None:
        self._read = read
        self._kept_s = kept_s
        self._clock_s = clock_s
        self._value: Any = None
        self._read_s: float | None = None
        self._reading = asyncio.Lock()

    async def get(self) -> Any:
        """The value, at most `kept_s` old when it was asked for."""
        async with self._reading:
            now_s = self._clock_s()
            if self._read_s is None or now_s - self._read_s >= self._kept_s:
                self._value = await self._read()
                self._read_s = now_s
            return self._value


class Readings:
    """All that the page shows. Used from the event loop; whatever takes time is done off it."""

    def __init__(self, node: Node, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._store = node.store
        kept = partial(Kept, kept_s=KEPT_S, clock_s=clock_s)
        self.status = kept(self._status).get
        self.jobs = kept(self._jobs).get
        self.models = kept(self._models).get
        self.providers = kept(self._providers).get
        self.validators = kept(self._validators).get
        self.standings = kept(self._standings).get
        self.genesis = Kept(self._genesis, GENESIS_KEPT_S, clock_s).get

    async def blocks(self, before: int, limit: int) -> list[dict[str, Any]]:
        """Blocks below a height (0: the newest), newest first."""
        return await self._node.look_up(_blocks, self._store, self._below(before), limit)

    async def block(self, height: int) -> dict[str, Any]:
        """One block with what it did. Raises Rejection."""
        found = await self._node.look_up(_block, self._store, height)
        if found is None:
            detail = f"no executed block {height}; the newest here is {self._node.height}"
            raise Rejection(RejectionReason.NOT_FOUND, detail)
        return found

    async def transactions(self, before: int, limit: int) -> dict[str, Any]:
        """Transactions of blocks below a height (0: the newest), newest first, and below which
        height there may be more."""
        return await self._node.look_up(_transactions, self._store, self._below(before), limit)

    async def transaction(self, identity: bytes) -> dict[str, Any]:
        """What became of a transaction, and the jobs it asked for. Raises Rejection."""
        found = await self._node.transaction(identity)
        if found is None:
            detail = f"no executed transaction {identity.hex()}{self._store.kept_note()}"
            raise Rejection(RejectionReason.NOT_FOUND, detail)
        height, receipt = found
        return transaction_value(receipt, height)

    async def job(self, identity: bytes) -> dict[str, Any]:
        """A job, its request, its steps and the ruling. Raises Rejection."""
        job, waiting = await self._node.worker.read(
            lambda ledger: (ledger.job(identity), ledger.explain(identity))
        )
        attempts_max = self._node.genesis.parameters.attempts_max

        def look() -> dict[str, Any] | None:
            store = self._store
            view = (
                settled_job_view(identity, store) if job is None else job_view(identity, job, store)
            )
            if view is None:
                return None
            ruling = _ruling(store, identity)
            return {
                **message_value(view),
                "request": _request(store, ruling if job is None else job),
                "transaction": _origin(store, identity),
                "ruling": None if ruling is None else ruling_value(ruling),
                "explanation": _explained(explanation(identity, waiting, attempts_max, store)),
                "history": [] if job is None else _history(store, identity, job.requested_height),
            }

        found = await self._node.look_up(look)
        if found is None:
            detail = f"no job {identity.hex()} on this chain; check the id, or wait until its "
            raise Rejection(RejectionReason.UNKNOWN_JOB, detail + "request is final")
        found["appeal"] = await self._appeal(identity) if found["appealed"] else None
        return found

    async def _appeal(self, identity: bytes) -> dict[str, Any] | None:
        try:
            return message_value(await appeal_of(self._node, identity))
        except Rejection as rejection:
            if rejection.reason is not RejectionReason.UNKNOWN_JOB:
                raise
            return None

    async def account(self, key: bytes) -> dict[str, Any]:
        """Balance and stake; an unknown account has none."""
        account = await self._node.worker.read(lambda ledger: ledger.account(key))
        amounts = {name: str(value) for name, value in account._asdict().items()}
        return {"account": address_value(key), "public_key": key.hex(), **amounts}

    async def receipt(self, job: bytes) -> bytes:
        """A settled job's receipt, as the file that people keep. Raises Rejection."""

        def build() -> bytes:
            return receipt_files.dump_json(build_receipt(self._store, self._node.genesis, job))

        return await self._node.look_up(build)

    def _below(self, before: int) -> int:
        return min(before, self._node.height + 1) if before else self._node.height + 1

    async def _status(self) -> dict[str, Any]:
        parameters = self._node.genesis.parameters
        return {
            **message_value(await self._node.status()),
            "genesis_time_ms": self._node.genesis.genesis_time_ms,
            "pruned_through": self._store.pruned_through,
            "committee_size": parameters.committee_size,
        }

    async def _jobs(self) -> list[dict[str, Any]]:
        jobs = await self._node.worker.read(lambda ledger: ledger.newest_jobs(JOBS_SHOWN))

        def look() -> list[dict[str, Any]]:
            return [
                {
                    **message_value(job_view(identity, job, self._store)),
                    **_times(self._store, identity, job.answered_height),
                }
                for identity, job in jobs
            ]

        return await self._node.look_up(look)

    async def _models(self) -> list[dict[str, Any]]:
        return await self._node.worker.read(
            lambda ledger: [
                message_value(model_view(identity, model, ledger.verifiers(identity)))
                for identity, model in ledger.models()
            ]
        )

    async def _providers(self) -> list[dict[str, Any]]:
        return await self._node.worker.read(
            lambda ledger: [
                {
                    **message_value(offer_view(model, provider, offer)),
                    "stake": str(ledger.account(provider).stake),
                }
                for model, provider, offer in ledger.offers()
            ]
        )

    async def _standings(self) -> dict[str, Any]:
        return message_value(standings_view(await self._node.worker.read(records)))

    async def _validators(self) -> dict[str, Any]:
        links = self._node.peers.links
        attendance = self._node.meter.attendance
        own = self._node.config.validator
        entries = await self._node.worker.read(standings)
        signed, proposed, counted = await self._node.look_up(
            _participation, self._store, self._node.height
        )
        shown = []
        for entry in entries:
            if entry.standing is Standing.LEFT:
                continue
            index, record, conviction = entry.index, entry.registered, entry.conviction
            shown.append(
                {
                    "index": index,
                    "account": address_value(record.account),
                    "signing_key": record.signing_key.hex(),
                    "stake": str(entry.weight),
                    "status": entry.standing.value,
                    "address": record.address,
                    "this_node": index == own,
                    "connected": links[index].connected if index in links else index == own,
                    "fault": "" if conviction is None else conviction.fault.name,
                    "convicted_height": 0 if conviction is None else conviction.height,
                    "missed": attendance.missed.get(index, 0),
                    "certificates": signed.get(index, 0),
                    "proposed": proposed.get(index, 0),
                }
            )
        return {"blocks": counted, "judged": attendance.judged, "validators": shown}

    async def _genesis(self) -> bytes:
        shown = genesis_file.to_json(self._node.genesis)
        return await self._node.look_up(lambda: json.dumps(shown).encode())


def block_value(store: Store, height: int) -> dict[str, Any] | None:
    """A block as lists show it, or None. Raises Rejection (PRUNED)."""
    view = block_view(store, height)
    if view is None:
        return None
    leaves = store.receipts_at(height)
    return {
        "height": view.height,
        "view": view.view,
        "digest": view.digest.hex(),
        "parent": view.parent.hex(),
        "proposer": view.proposer,
        "timestamp_ms": view.timestamp_ms,
        "transactions": view.transactions,
        "settled_jobs": leaves.starting_with(JOB_LEAF),
        "signers": view.signers,
        "execution_root": view.execution_root.hex(),
        "state_root": view.state_root.hex(),
        "receipts_root": view.receipts_root.hex(),
        "events_root": view.events_root.hex(),
    }


def changed_jobs(store: Store, height: int, limit: int = BLOCK_ITEMS_MAX) -> list[dict[str, Any]]:
    """Jobs that a block moved on, each with its new status."""
    events = _events_of(store.events_at(height), EventKind.JOB_CHANGED, limit)
    return [
        {
            "job": event.subject.hex(),
            "status": JobStatus(event.code).name,
            "provider": address_value(event.other),
        }
        for event in events
    ]


def _events_of(leaves: PackedLeaves, kind: EventKind, limit: int) -> list[Event]:
    """The first events of a kind; no other becomes an object."""
    ends = np.frombuffer(leaves.ends, "<u4").astype(np.int64)
    starts = np.concatenate((np.zeros(1, np.int64), ends))[:-1]
    tags = np.frombuffer(leaves.data, np.uint8)
    long_enough = np.flatnonzero(ends - starts > 1)
    places = long_enough[tags[starts[long_enough] + 1] == int(kind)]
    found = []
    for place in places[:limit]:
        leaf = leaves[int(place)]
        try:
            found.append(decode(Event, leaf[len(EVENT_LEAF) :]))
        except DecodeError:
            continue
    return found


def _blocks(store: Store, below: int, limit: int) -> list[dict[str, Any]]:
    found = []
    lowest = max(store.pruned_through, below - 1 - limit, 0)
    for height in range(below - 1, lowest, -1):
        value = block_value(store, height)
        if value is not None:
            found.append(value)
    return found


def _block(store: Store, height: int) -> dict[str, Any] | None:
    value = block_value(store, height)
    stored = store.block_by_height(height)
    if value is None or stored is None:
        return None
    certified = store.certificate_at(height)
    leaves = store.receipts_at(height)
    return {
        **value,
        "beacon": stored.beacon.hex(),
        "executed_height": stored.block.executed_height,
        "executed_root": stored.block.executed_root.hex(),
        "certified_height": None if certified is None else certified[0],
        "certified_by": [] if certified is None else list(certified[1].signers),
        "cut": [
            {"lane": tip.lane, "sequence": tip.sequence, "digest": tip.digest.hex()}
            for tip in stored.block.cut
        ],
        "transaction_list": _transactions_of(leaves, height),
        "job_changes": changed_jobs(store, height),
    }


def _transactions_of(leaves: PackedLeaves, height: int) -> list[dict[str, Any]]:
    return [
        transaction_value(decode(TransactionReceipt, leaf[len(TRANSACTION_LEAF) :]), height)
        for leaf in leaves[:BLOCK_ITEMS_MAX]
        if leaf.startswith(TRANSACTION_LEAF)
    ]


def _transactions(store: Store, below: int, limit: int) -> dict[str, Any]:
    """Whole blocks only, so that the next list begins where this one ends."""
    found: list[dict[str, Any]] = []
    lowest = max(store.pruned_through, below - 1 - SEARCHED_BLOCKS_MAX, 0)
    height = below
    while height - 1 > lowest and len(found) < limit:
        height -= 1
        block = store.final_block(height)
        if block is None:
            continue
        for value in _transactions_of(store.receipts_at(height), height):
            found.append({**value, "timestamp_ms": block[0].timestamp_ms})
    more = height if height - 1 > store.pruned_through else None
    return {"transactions": found, "before": more}


def _explained(view: node_pb2.Explanation) -> dict[str, Any]:
    """Why each attempt went where it did, with the reasons in words."""
    value = message_value(view)
    for choice in [*value["choices"], *filter(None, [value["now"]])]:
        for candidate in choice["candidates"]:
            candidate["why"] = WHY[OfferStanding[candidate["standing"]]]
    return value


def _ruling(store: Store, job: bytes) -> JobReceipt | None:
    location = store.job_location(job)
    if location is None:
        return None
    return decode(JobReceipt, store.receipt_leaf(location)[len(JOB_LEAF) :])


def _request(store: Store, source: Job | JobReceipt | None) -> dict[str, Any] | None:
    """What was asked, while the node keeps it."""
    data = None if source is None else store.payload(source.request_digest)
    return None if data is None else message_value(parse_request(data))


def _origin(store: Store, job: bytes) -> str | None:
    origin = store.job_origin(job)
    return None if origin is None else origin.transaction.hex()


def _times(store: Store, job: bytes, answered_height: int) -> dict[str, Any]:
    """When a job was answered and settled, by block time in unix ms; None before."""
    location = store.job_location(job)
    return {
        "answered_ms": _time_of(store, answered_height),
        "settled_height": None if location is None else location.height,
        "settled_ms": None if location is None else _time_of(store, location.height),
    }


def _time_of(store: Store, height: int) -> int | None:
    found = store.final_block(height) if height else None
    return None if found is None else found[0].timestamp_ms


def _history(store: Store, job: bytes, requested_height: int) -> list[dict[str, Any]]:
    """The steps a job took, from the events of the blocks since its request."""
    steps = []
    last = min(store.height or 0, requested_height + HISTORY_BLOCKS_MAX)
    for height in range(requested_height, last + 1):
        if job not in store.events_at(height).data:
            continue
        for change in changed_jobs(store, height):
            if change["job"] == job.hex():
                steps.append(
                    {
                        "status": change["status"],
                        "provider": change["provider"],
                        "height": height,
                        "timestamp_ms": _time_of(store, height),
                    }
                )
        if steps and JobStatus[steps[-1]["status"]] in FINAL_STATUSES:
            break
    return steps


def _participation(store: Store, newest: int) -> tuple[dict[int, int], dict[int, int], int]:
    """Certificates signed and blocks proposed by validator, in the newest blocks, and how many."""
    signed: dict[int, int] = {}
    proposed: dict[int, int] = {}
    counted = 0
    for height in range(newest, max(store.pruned_through, newest - CERTIFIED_BLOCKS, 0), -1):
        block = store.final_block(height)
        certified = store.certificate_at(height)
        if block is None or certified is None:
            continue
        counted += 1
        proposed[block[0].proposer] = proposed.get(block[0].proposer, 0) + 1
        for signer in certified[1].signers:
            signed[signer] = signed.get(signer, 0) + 1
    return signed, proposed, counted
