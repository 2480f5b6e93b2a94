"""What Prometheus reads of a node: every metric's name, meaning and value in one list.

A scrape reads numbers that the event loop has at hand, asks the disk on a thread, and writes the
text there. Scrapes within a second get the same text, so that asking often costs nothing.
docs/metrics.md is the same list for people; a test keeps them equal.
"""

import asyncio
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from prometheus_client import ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from chain.node.health import Standing, judge
from chain.node.meter import FINAL_STATUSES
from chain.node.node import Node

# The library's series beside each counter, of when it began: nobody asks for them.
disable_created_metrics()  # type: ignore[no-untyped-call]

FRESH_S: Final = 1.0
DELAY_PROBE_S: Final = 0.5

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Label values, and the number."""


@dataclass(frozen=True, slots=True)
class _Disk:
    free_bytes: int
    size_bytes: int
    store_bytes: int


class NodeMetrics(Collector):
    """A node's metrics and health. Used from the event loop only."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._registry = node.meter.registry
        self._registry.register(self)
        ProcessCollector(namespace="assay", registry=self._registry)
        self._families: list[Metric] = []
        self._text = b""
        self._text_at_s: float | None = None
        self._disk = _Disk(0, 0, 0)
        self._turn = asyncio.Lock()

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for."""
        yield from self._families

    async def render(self) -> bytes:
        """The text of a scrape."""
        async with self._turn:
            now_s = time.monotonic()
            if self._text_at_s is None or now_s - self._text_at_s >= FRESH_S:
                self._disk = await asyncio.to_thread(_look_at_disk, self._node.config.data)
                self._families = list(self._take())
                self._text = await asyncio.to_thread(generate_latest, self._registry)
                self._text_at_s = now_s
            return self._text

    async def standing(self) -> Standing:
        """What the rules of health look at, now."""
        self._disk = await asyncio.to_thread(_look_at_disk, self._node.config.data, False)
        return self._standing()

    async def watch_loop(self) -> None:
        """Measure how late the event loop comes, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + DELAY_PROBE_S
            await asyncio.sleep(DELAY_PROBE_S)
            self._node.meter.loop_delay_s.observe(max(0.0, loop.time() - due_s))

    def _standing(self) -> Standing:
        node, now_ms = self._node, self._node.now_ms()
        meter = node.meter
        connected = [index for index, link in node.peers.links.items() if link.connected]
        stakes = node.members.stakes()
        runtimes = () if node.runtime is None else node.runtime.states()
        since_ms = meter.executing_since_ms
        return Standing(
            final_height=node.driver.replica.finalized_height,
            height=node.height,
            since_final_ms=now_ms - meter.final_at_ms,
            executing_for_ms=0 if since_ms is None else now_ms - since_ms,
            stake_reached=sum(
                stakes.get(index, 0) for index in (*connected, node.config.validator)
            ),
            stake_total=sum(stakes.values()),
            not_voting=node.not_voting,
            votes_by_itself=node.votes_by_itself,
            runtimes_up=sum(runtime.healthy for runtime in runtimes),
            runtimes_down=tuple(
                f"{runtime.address}: {runtime.detail}"
                for runtime in runtimes
                if not runtime.healthy
            ),
            disk_free_bytes=self._disk.free_bytes,
            is_stopping=node.is_stopping,
        )

    def _take(self) -> Iterator[Metric]:
        yield from self._of_node()
        yield from self._of_consensus()
        yield from self._of_lanes()
        yield from self._of_ingress()
        yield from self._of_jobs()
        yield from self._of_runtimes()
        yield from self._of_store()

    def _of_node(self) -> Iterator[Metric]:
        node = self._node
        identity = (metadata.version("assay-chain"), node.genesis.chain_id)
        validator = str(node.config.validator)
        labels = ("version", "chain", "validator")
        yield _gauge(
            "assay_node_build_info",
            "Always 1; what runs, and for which chain.",
            [((*identity, validator), 1)],
            labels,
        )
        standing = self._standing()
        health = judge(standing)
        yield _gauge("assay_node_ready_state", "1 if /readyz says so.", not health.unready)
        yield _gauge(
            "assay_node_voting_state",
            "1 if this validator votes; 0 if it only follows.",
            not standing.not_voting,
        )
        yield _gauge(
            "assay_node_start_time_seconds",
            "Unix time of the node's start.",
            node.meter.started_ms / 1000,
        )

    def _of_consensus(self) -> Iterator[Metric]:
        node, replica = self._node, self._node.driver.replica
        meter = node.meter
        yield _gauge(
            "assay_consensus_final_height_blocks",
            "Height of the newest final block this node knows.",
            replica.finalized_height,
        )
        yield _gauge("assay_consensus_view_views", "The view this node is in.", replica.view)
        yield _gauge(
            "assay_consensus_epoch_epochs", "The epoch of the next block.", node.members.epoch
        )
        yield _gauge(
            "assay_consensus_member_state",
            "1 if this validator is a member of the epoch of the next block.",
            node.members.member(node.config.validator) is not None,
        )
        yield _gauge(
            "assay_consensus_since_final_seconds",
            "Time since this node learnt of a final block; an idle chain makes one every 10 s.",
            (node.now_ms() - meter.final_at_ms) / 1000,
        )
        yield _counter(
            "assay_consensus_missed_votes_total",
            "Final blocks in whose view nothing was heard of a validator, by validator.",
            [((str(index),), missed) for index, missed in sorted(meter.attendance.missed.items())],
            ("validator",),
        )
        yield _counter(
            "assay_consensus_judged_blocks_total",
            "Final blocks whose votes were looked at: missed votes are out of these.",
            meter.attendance.judged,
        )
        yield _gauge(
            "assay_peers_connected_state",
            "1 while both streams to a peer are open, by validator.",
            [((str(index),), link.connected) for index, link in node.peers.links.items()],
            ("validator",),
        )
        yield _gauge(
            "assay_ledger_height_blocks",
            "Height of the newest executed block.",
            node.height,
        )
        yield _counter(
            "assay_ledger_executed_transactions_total",
            "Transactions in executed blocks.",
            meter.transactions,
        )

    def _of_lanes(self) -> Iterator[Metric]:
        replica = self._node.driver.replica
        final = {tip.lane: tip.sequence for tip in replica.finalized_block.cut}
        yield _gauge(
            "assay_lanes_unordered_batches",
            "Batches held of a lane that no final block names yet, by lane.",
            [
                ((str(tip.lane),), tip.sequence - final.get(tip.lane, 0))
                for tip in replica.held_tips
            ],
            ("lane",),
        )
        yield _gauge(
            "assay_lanes_unproven_batches",
            "Own batches that too few peers have acknowledged yet.",
            replica.lane_unproven,
        )

    def _of_ingress(self) -> Iterator[Metric]:
        node = self._node
        yield _gauge(
            "assay_ingress_pending_transactions",
            "Admitted transactions that wait to be sealed.",
            node.intake.pending,
        )
        yield _gauge(
            "assay_ingress_pending_bytes",
            "Bytes of transactions being checked or waiting to be sealed.",
            node.intake.waiting_bytes,
        )
        yield _gauge(
            "assay_ingress_pending_limit_bytes",
            "Beyond this clients are told BUSY.",
            node.config.pending_bytes_max,
        )
        yield _counter(
            "assay_ingress_admitted_transactions_total",
            "Transactions of clients that were admitted.",
            node.meter.admitted,
        )
        yield _counter(
            "assay_ingress_refusals_total",
            "Calls and transactions of clients that were refused, by reason.",
            [((reason.value,), count) for reason, count in node.meter.refused.items()],
            ("reason",),
        )
        yield _gauge(
            "assay_ingress_open_calls",
            "Calls of clients that wait for something.",
            node.open_calls.count,
        )

    def _of_jobs(self) -> Iterator[Metric]:
        meter = self._node.meter
        yield _gauge("assay_jobs_open_jobs", "Jobs that are not settled.", meter.open_jobs)
        yield _counter(
            "assay_jobs_requested_total", "Jobs requested in executed blocks.", meter.jobs_requested
        )
        yield _counter(
            "assay_jobs_finished_total",
            "Jobs settled in executed blocks, by outcome.",
            [((status.name,), meter.jobs_finished[status]) for status in FINAL_STATUSES],
            ("outcome",),
        )
        yield _counter(
            "assay_provider_jobs_total",
            "Settled jobs that were this validator's to answer, by outcome.",
            [((status.name,), meter.jobs_answered[status]) for status in FINAL_STATUSES],
            ("outcome",),
        )

    def _of_runtimes(self) -> Iterator[Metric]:
        states = () if self._node.runtime is None else self._node.runtime.states()
        label = ("runtime",)
        for name, text, values in (
            ("up_state", "1 while a runtime answers.", [state.healthy for state in states]),
            (
                "in_flight_requests",
                "Requests of this node at a runtime.",
                [state.in_flight for state in states],
            ),
            (
                "queued_requests",
                "Requests of anybody that waited there at the last probe.",
                [state.queued for state in states],
            ),
            (
                "running_requests",
                "Requests of anybody that ran there at the last probe.",
                [state.running for state in states],
            ),
        ):
            samples = [
                ((state.address,), float(value))
                for state, value in zip(states, values, strict=True)
            ]
            yield _gauge(f"assay_runtime_{name}", text, samples, label)

    def _of_store(self) -> Iterator[Metric]:
        disk = self._disk
        yield _gauge("assay_store_size_bytes", "Of the node's data folder.", disk.store_bytes)
        yield _gauge("assay_disk_free_bytes", "On the data folder's disk.", disk.free_bytes)
        yield _gauge("assay_disk_size_bytes", "Of the data folder's disk.", disk.size_bytes)
        yield _gauge(
            "assay_store_pruned_height_blocks",
            "Blocks up to this height are forgotten; 0 if none is.",
            self._node.store.pruned_through,
        )


def _gauge(
    name: str, text: str, value: float | Samples, labels: tuple[str, ...] = ()
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in _samples(value):
        family.add_metric(values, number)
    return family


def _counter(
    name: str, text: str, value: float | Samples, labels: tuple[str, ...] = ()
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, number in _samples(value):
        family.add_metric(values, number)
    return family


def _samples(value: float | Samples) -> Samples:
    return [((), float(value))] if isinstance(value, int | float) else value


def _look_at_disk(data: Path, with_store: bool = True) -> _Disk:
    """For a thread. Files that go away meanwhile do not count."""
    usage = shutil.disk_usage(data)
    return _Disk(usage.free, usage.total, _size_of(data) if with_store else 0)


def _size_of(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.stat().st_size
        except FileNotFoundError:
            continue
    return size
