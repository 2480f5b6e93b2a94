"""python -m tests.faults [--output FILE] [--home DIR] [--model DIR] [--fault-seconds S] …"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from chain.devnet import start_node, stop_devnet
from tests.e2e.network import Network, command, create_network, output_of, record_node
from tests.faults import campaign
from tests.faults.cluster import linked, watched


def main() -> None:
    """Run the campaign; exit code 1 if a promise did not hold."""
    plan = campaign.Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=campaign.__doc__)
    parser.add_argument("--output", type=Path, help="file for the JSON report")
    parser.add_argument("--model", type=Path, help="package of a model, to ask it questions, too")
    parser.add_argument("--per-second", type=float, default=plan.per_second, help="payments")
    parser.add_argument("--calm-seconds", type=float, default=plan.calm_s)
    parser.add_argument("--fault-seconds", type=float, default=plan.fault_s)
    parser.add_argument("--rounds", type=int, default=plan.rounds)
    given = parser.parse_args()
    chosen = campaign.Plan(
        per_second=given.per_second,
        calm_s=given.calm_seconds,
        fault_s=given.fault_seconds,
        rounds=given.rounds,
        job_every_s=plan.job_every_s if given.model is not None else 0.0,
    )
    with tempfile.TemporaryDirectory(prefix="assay-faults-") as folder:
        network = create_network(Path(folder) / "devnet")
        began_s = time.monotonic()
        report = asyncio.run(_run(network, chosen, given.model))
    verdicts = report.verdicts()
    value = {
        "verdicts": verdicts,
        "p99_ratio": round(report.p99_ratio, 2),
        **asdict(report),
        "wall_s": round(time.monotonic() - began_s),
        "machine": _machine(),
    }
    text = json.dumps(value, indent=2)
    if given.output is not None:
        given.output.write_text(text + "\n")
    print(text)
    print(
        f"p99 calm {report.calm['p99_ms']} ms, faulty {report.faulty['p99_ms']} ms: "
        f"{report.p99_ratio:.2f} times, at most {campaign.SLOWER_MOST:g} are promised"
    )
    raise SystemExit(0 if all(verdicts.values()) else 1)


async def _run(network: Network, plan: campaign.Plan, model: Path | None) -> campaign.Report:
    async with linked(network) as links:
        try:
            if model is None:
                for node in network.nodes:
                    record_node(network, start_node(network.home, node))
            else:
                start = ("devnet", "start", "--home", network.home, "--model", model)
                # In a thread: the links run here.
                done = await asyncio.to_thread(command, *start, "--detach", "--json")
                output_of(done)
            async with watched(network, links) as cluster:
                return await campaign.run(cluster, plan)
        finally:
            stop_devnet(network.home)


def _machine() -> dict[str, Any]:
    """Beside what else it ran."""
    return {
        "processors": os.cpu_count(),
        "load_average": [round(load, 1) for load in psutil.getloadavg()],
    }


if __name__ == "__main__":
    main()
