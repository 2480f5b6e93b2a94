"""Measure wide-area settings and say what came out: rows of plain values, ready for JSON."""

import gc
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

from consensus.sim import wan
from consensus.sim.wan import Cost, Setting, WanWorld, Workload

SETTLED_MS: Final = 5_000
"""A batch that is older than this at the end and not final is counted as unfinished."""


def measure(setting: Setting) -> dict[str, Any]:
    """One row: finality in milliseconds, bytes a validator sends in a second, cost by kind.

    Raises InvariantBroken, as every simulated world does.
    """
    world = WanWorld(setting)
    collecting = gc.isenabled()
    # Nothing in a world is a cycle that matters, and a hundred replicas are much to look through.
    gc.disable()
    try:
        fate = world.run(wan.WARM_UP_MS + 1_000 * setting.seconds)
    finally:
        if collecting:
            gc.enable()
    validator_seconds = setting.validators * setting.seconds
    costs = sorted(world.links.costs.items(), key=lambda item: -item[1].size_bytes)
    total = sum(cost.size_bytes for _, cost in costs)
    busiest = max(world.links.sent_bytes.values(), default=0)
    return {
        **asdict(setting),
        "payload_bytes_a_batch": setting.payload_bytes(),
        "blocks": fate.height,
        "finality_ms": _spread(sorted(world.finality_ms)),
        "unfinished": world.unfinished(world.now_ms - SETTLED_MS),
        "bytes_a_validator_second": round(total / validator_seconds),
        "bytes_without_batches_a_validator_second": round(
            (total - world.links.costs.get("BatchMessage", Cost()).size_bytes) / validator_seconds
        ),
        "bytes_a_second_of_the_busiest": round(busiest / setting.seconds),
        "messages_a_validator_second": round(
            sum(cost.messages for _, cost in costs) / validator_seconds, 1
        ),
        "lost": world.links.lost,
        "by_kind": {
            kind: {
                "messages": cost.messages,
                "bytes_a_validator_second": round(cost.size_bytes / validator_seconds, 1),
                "share": round(cost.size_bytes / total, 4),
            }
            for kind, cost in costs
        },
        "trace_sha256": fate.digest,
    }


def assumptions() -> dict[str, Any]:
    """What every row rests on."""
    return {
        "regions": wan.REGIONS,
        "round_trip_ms": wan.ROUND_TRIP_MS,
        "round_trip_source": "github.com/ibm-cloud-docs/vpc network-latency.md, August 2024",
        "jitter_mean_ms": wan.JITTER_MS,
        "sync_before_sending_ms": wan.SYNC_MS,
        "retransmission_ms": f"one round trip and {wan.RETRANSMIT_MS}",
        "overhead_bytes": {
            "segment": wan.SEGMENT_OVERHEAD_BYTES,
            "message": wan.MESSAGE_OVERHEAD_BYTES,
        },
        "finality": (
            f"from the first transaction of a batch, {wan.BATCH_INTERVAL_MS} ms before sealing, "
            "to the delivery of its block to execution where it was sealed"
        ),
        "processors": "cost nothing but 1 to 16 ms for each check and execution",
    }


def lines(rows: Iterable[dict[str, Any]]) -> list[str]:
    """For people."""
    return [line for row in rows for line in _lines(row)]


def _lines(row: dict[str, Any]) -> Sequence[str]:
    spread = row["finality_ms"]
    finality = f"final after {spread['p50']} ms (p99 {spread['p99']}), " if spread else ""
    kinds = list(row["by_kind"].items())[:4]
    return (
        f"{row['validators']:>3} validators, {row['workload']}, {row['loss']:.1%} lost "
        f"({row['transport']}): {finality}{row['bytes_a_validator_second'] / 1000:.1f} kB/s each, "
        f"{row['bytes_without_batches_a_validator_second'] / 1000:.1f} without batches",
        "     " + ", ".join(f"{kind} {cost['share']:.0%}" for kind, cost in kinds),
    )


def _spread(values: Sequence[int]) -> dict[str, int] | None:
    """Percentiles of sorted values; None if there are none."""
    if not values:
        return None
    percentiles = {f"p{share}": values[len(values) * share // 100] for share in (5, 50, 90, 99)}
    return {"batches": len(values), **percentiles, "most": values[-1]}


def settings(
    validators: Sequence[int], loss: float, seed: int, seconds: int, idle_seconds: int
) -> list[Setting]:
    """Every workload at every size over streams, and the load of the largest once more over links
    that lose messages for good."""
    measured = [
        Setting(
            validators=count,
            workload=workload,
            seed=seed,
            seconds=seconds if workload is Workload.LOAD else idle_seconds,
            loss=loss,
        )
        for count in validators
        for workload in Workload
    ]
    return [
        *measured,
        Setting(
            validators=max(validators),
            workload=Workload.LOAD,
            seed=seed,
            seconds=seconds,
            loss=loss,
            transport=wan.Transport.DATAGRAM,
        ),
    ]
