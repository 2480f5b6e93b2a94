"""The long form: calm first, then every fault on every validator in turn, then f + 1 at once.

Latencies are of an open loop: from when a payment was meant to be sent until a client was told that
it is final. What was sent while a validator was faulty or not back yet is compared with the calm of
the same run. What was sent while f + 1 were down has to become final, too, but is not timed.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from chain.asking import ask
from chain.client import NodeUnavailableError
from chain.rejections import Rejection
from tests.e2e.network import COMMAND_BOUND_S, request_for
from tests.faults.cluster import Cluster, Fault
from tests.faults.ledgers import compare
from tests.faults.load import Load, Payment

REJOIN_WITHIN_S = 20.0
SLOWER_MOST = 3.0
SETTLE_S = 3.0
"""After f + 1 went down: what has its votes already may still become final."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how much."""

    per_second: float = 20.0
    calm_s: float = 30.0
    fault_s: float = 30.0
    between_s: float = 2.0
    rounds: int = 1
    """How often every fault befalls every validator."""
    job_every_s: float = 20.0
    """0 for none."""


@dataclass
class Report:
    """What the campaign found; `verdicts` says what held."""

    plan: Plan
    faults: list[dict[str, Any]] = field(default_factory=list)
    calm: dict[str, Any] = field(default_factory=dict)
    faulty: dict[str, Any] = field(default_factory=dict)
    halt: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)
    ledgers: dict[str, Any] = field(default_factory=dict)
    payments: dict[str, int] = field(default_factory=dict)

    @property
    def p99_ratio(self) -> float:
        """How many times slower than calm."""
        return float(self.faulty["p99_ms"] / self.calm["p99_ms"])

    def verdicts(self) -> dict[str, bool]:
        """What was promised, and whether it held in this run."""
        return {
            "no acknowledged payment lost": not self.ledgers["lost"],
            "no conflicting final blocks": not self.ledgers["conflicts"],
            "nobody honest convicted": not self.ledgers["convicted"],
            "every payment final in the end": self.payments["acknowledged"]
            == self.payments["sent"],
            "halted while f + 1 were down": self.halt["blocks_while_down"] == 0,
            "every validator back within 20 s": all(
                fault["rejoin_s"] <= REJOIN_WITHIN_S for fault in [*self.faults, self.halt]
            ),
            "p99 at most three times the calm one": self.p99_ratio <= SLOWER_MOST,
        }


def summary(payments: Sequence[Payment]) -> dict[str, Any]:
    """Milliseconds until final, by percentile."""
    times = sorted(p.finality_s for p in payments if p.finality_s is not None)
    if not times:
        return {"payments": 0}
    ranks = {f"p{share}": math.ceil(len(times) * share / 100) - 1 for share in (50, 90, 99)}
    found = {f"{name}_ms": round(times[rank] * 1000) for name, rank in ranks.items()}
    return {"payments": len(times), **found, "most_ms": round(times[-1] * 1000)}


async def run(cluster: Cluster, plan: Plan) -> Report:
    """The whole campaign on a network that runs."""
    report = Report(plan)
    load = Load(cluster.network, cluster.clients, plan.per_second)
    async with asyncio.TaskGroup() as group:
        paying = group.create_task(load.run())
        asking = group.create_task(_ask(cluster, load, plan, report))
        began_s = time.monotonic()
        await asyncio.sleep(plan.calm_s)
        calm_until_s = time.monotonic()
        count = len(cluster.clients)
        # The next fault on the next validator: three and four make every pair in twelve turns.
        for turn, (_, fault) in enumerate(itertools.product(range(plan.rounds * count), Fault)):
            await _befall(cluster, load, plan, report, fault, turn % count)
        faulty_until_s = time.monotonic()
        await _halt(cluster, load, plan, report)
        asking.cancel()
        load.stop()
        await paying
    report.calm = summary(load.between(began_s, calm_until_s))
    report.faulty = summary(load.between(calm_until_s, faulty_until_s))
    refused = [payment.refused for payment in load.payments if payment.refused]
    report.payments = {
        "sent": len(load.payments),
        "acknowledged": sum(p.acknowledged_s is not None for p in load.payments),
        "refused": len(refused),
    }
    found = await compare(cluster.clients, load.payments)
    report.ledgers = {
        "height": found.height,
        "lost": list(found.lost),
        "conflicts": list(found.conflicts),
        "convicted": list(found.convicted),
    }
    return report


async def _befall(
    cluster: Cluster, load: Load, plan: Plan, report: Report, fault: Fault, validator: int
) -> None:
    began_s = time.monotonic()
    height = await cluster.height(validator)
    load.avoided.add(validator)
    cluster.begin(fault, validator)
    await asyncio.sleep(plan.fault_s)
    blocks = await cluster.height(validator) - height
    cluster.end(fault, validator)
    rejoin_s = await cluster.rejoined(validator)
    load.avoided.discard(validator)
    ended_s = time.monotonic()
    report.faults.append(
        {
            "fault": fault.value,
            "validator": validator,
            "blocks_meanwhile": blocks,
            "rejoin_s": round(rejoin_s, 2),
            "finality": summary(load.between(began_s, ended_s)),
        }
    )
    await asyncio.sleep(plan.between_s)


async def _halt(cluster: Cluster, load: Load, plan: Plan, report: Report) -> None:
    """One is killed and one cut off at once."""
    killed, cut = 1, 2
    load.avoided |= {killed, cut}
    cluster.begin(Fault.KILL, killed)
    cluster.begin(Fault.CUT, cut)
    await asyncio.sleep(SETTLE_S)
    halted = await cluster.height(killed)
    await asyncio.sleep(plan.fault_s)
    blocks = await cluster.height(killed) - halted
    cluster.end(Fault.KILL, killed)
    cluster.end(Fault.CUT, cut)
    back_s = await asyncio.gather(*(cluster.rejoined(validator) for validator in (killed, cut)))
    began_s = time.monotonic()
    await cluster.grows(3)
    report.halt = {
        "validators": [killed, cut],
        "down_s": plan.fault_s,
        "blocks_while_down": blocks,
        "rejoin_s": round(max(back_s), 2),
        "three_blocks_later_s": round(time.monotonic() - began_s, 2),
    }
    load.avoided -= {killed, cut}


async def _ask(cluster: Cluster, load: Load, plan: Plan, report: Report) -> None:
    """Questions to the model, one after the other, at nodes that are well."""
    for number in itertools.count():
        if not plan.job_every_s:
            return
        await asyncio.sleep(plan.job_every_s)
        well = [index for index in range(len(cluster.clients)) if index not in load.avoided]
        client = cluster.clients[well[number % len(well)]]
        try:
            request = await request_for(client, 4, prompt=f"What is {number}?")
            answer = await ask(client, cluster.network.user, request, COMMAND_BOUND_S)
            outcome = answer.status
        except (NodeUnavailableError, Rejection) as error:
            outcome = type(error).__name__
        report.jobs[outcome] = report.jobs.get(outcome, 0) + 1
