"""The report of `assay bench ledger`: medians and spread over runs, baselines beside them."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from chain.benchmark.jobs import STEPS, MeasuredJobs
from chain.benchmark.pipeline import STAGES, Measured
from chain.benchmark.workload import Workload

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Baselines:
    """CPU microseconds a transaction, one value a run."""

    libsodium_us: list[float]
    protobuf_us: list[float]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest, to two places."""
    return {
        "median": round(statistics.median(values), 2),
        "least": round(min(values), 2),
        "greatest": round(max(values), 2),
    }


def build_report(
    workload: Workload,
    runs: Sequence[Measured],
    baselines: Baselines,
    jobs: Sequence[MeasuredJobs],
) -> dict[str, Any]:
    """The report of one process; times are CPU microseconds a transaction where not named wall."""
    totals = [run.cpu_total_s * 1e6 / run.transactions for run in runs]
    stages = {
        name: spread([run.cpu_s[name] * 1e6 / run.transactions for run in runs]) for name in STAGES
    }
    slow = [
        total - run.cpu_s["verify"] * 1e6 / run.transactions + libsodium
        for total, run, libsodium in zip(totals, runs, baselines.libsodium_us, strict=True)
    ]
    return {
        "format": FORMAT,
        "workload": asdict(workload),
        "machine": machine(),
        "runs": len(runs),
        "execution_root": runs[0].execution_root.hex(),
        "cpu_us": {"total": spread(totals), **stages},
        "restart_s": spread([run.restart_s for run in runs]),
        "wall_us": spread([run.wall_s * 1e6 / run.transactions for run in runs]),
        "transactions_a_second": spread([run.transactions / run.wall_s for run in runs]),
        "baselines_cpu_us": {
            "libsodium, one by one": spread(baselines.libsodium_us),
            "protobuf, every field": spread(baselines.protobuf_us),
            "this pipeline with libsodium": spread(slow),
        },
        "ratios": {
            "this pipeline with libsodium / this pipeline": spread(
                [one / total for one, total in zip(slow, totals, strict=True)]
            ),
            "libsodium / verify": spread(
                [
                    libsodium * run.transactions / (run.cpu_s["verify"] * 1e6)
                    for libsodium, run in zip(baselines.libsodium_us, runs, strict=True)
                ]
            ),
            "protobuf / parse": spread(
                [
                    protobuf * run.transactions / (run.cpu_s["parse"] * 1e6)
                    for protobuf, run in zip(baselines.protobuf_us, runs, strict=True)
                ]
            ),
        },
        "jobs": {
            "a_block": jobs[0].jobs,
            "execution_cpu_us": {
                name: spread([one.cpu_us[name] for one in jobs]) for name in STEPS
            },
            "request_and_result_pairs_a_cpu_second": spread([one.pairs_a_second for one in jobs]),
        },
    }


def together(reports: Sequence[dict[str, Any]], rounds_s: Sequence[float]) -> dict[str, Any]:
    """Several processes that ran at once: what they did together, and each for itself."""
    done = sum(report["workload"]["transactions"] for report in reports)
    return {
        "format": FORMAT,
        "machine": machine(),
        "processes": len(reports),
        "transactions_a_second_together": spread([done / wall_s for wall_s in rounds_s]),
        "each": list(reports),
    }


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total >> 20,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
    }
