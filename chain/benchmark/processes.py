"""Runs of the ledger benchmark: in this process, or in several that start together."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from chain.benchmark.baselines import libsodium_us, protobuf_us
from chain.benchmark.jobs import measure_jobs
from chain.benchmark.pipeline import BenchmarkError, Gate, measure
from chain.benchmark.report import Baselines, build_report, together
from chain.benchmark.workload import CHAIN_ID, Workload

BASELINE_TRANSACTIONS: Final = 2_000
"""Enough for libsodium to take a fifth of a second."""
JOBS: Final = 2_000
"""A block of each step of so many takes a second altogether."""
READY: Final = "ready"
START: Final = "start"
DONE: Final = "done"

Tell = Callable[[str], None]
"""Called with what is being done."""


class Turns(Gate):
    """The side of a process that was started by `run_together`: it says when it is ready and done,
    and starts on its parent's word."""

    def before(self) -> None:
        """Wait for the others. Raises BenchmarkError if the parent is gone."""
        self._say(READY)
        if sys.stdin.readline().strip() != START:
            raise BenchmarkError("the process that asked for this run is gone")

    def after(self) -> None:
        """Tell the parent, which takes the time."""
        self._say(DONE)

    def _say(self, word: str) -> None:
        sys.stdout.write(f"{word}\n")
        sys.stdout.flush()


def run(
    workload: Workload, runs: int, directory: Path | None, tell: Tell, gate: Gate
) -> dict[str, Any]:
    """Sign, measure `runs` times, then the baselines as often; the report.

    Stores go to new directories below `directory`, and are removed. Raises BenchmarkError.
    """
    tell(f"signing {workload.transactions} transactions of {workload.senders} senders")
    payloads = list(workload.payloads())
    measured, libsodium, protobuf, jobs = [], [], [], []
    for number in range(runs):
        tell(f"run {number + 1} of {runs}")
        with tempfile.TemporaryDirectory(prefix="assay-bench-", dir=directory) as place:
            measured.append(measure(workload, payloads, Path(place), gate))
        sample = _sample(workload, payloads)
        libsodium.append(libsodium_us(CHAIN_ID, sample))
        protobuf.append(protobuf_us(sample))
        jobs.append(measure_jobs(min(JOBS, workload.transactions)))
    if len({one.execution_root for one in measured}) != 1:
        raise BenchmarkError("runs over the same transactions came to different roots")
    return build_report(workload, measured, Baselines(libsodium, protobuf), jobs)


def run_together(
    workload: Workload, runs: int, directory: Path | None, processes: int, tell: Tell
) -> dict[str, Any]:
    """The same in several processes, each of whose passes start together.

    Each has its own seed, store and accounts, as validators have. A round's time is from the
    common start to the end of the last process. Raises BenchmarkError if one fails.
    """
    tell(f"{processes} processes sign {workload.transactions} transactions each")
    children: list[subprocess.Popen[str]] = []
    rounds_s: list[float] = []
    try:
        for number in range(processes):
            children.append(_start(replace(workload, seed=workload.seed + number), runs, directory))
        for number in range(runs):
            for child in children:
                _expect(child, READY)
            tell(f"round {number + 1} of {runs}")
            started_s = perf_counter()
            for child in children:
                _say_start(child)
            for child in children:
                _expect(child, DONE)
            rounds_s.append(perf_counter() - started_s)
        reports = [json.loads(_line(child)) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    return together(reports, rounds_s)


def child(task: str) -> None:
    """What such a process does with its task, which `_start` wrote."""
    asked = json.loads(task)
    directory = asked["directory"]
    report = run(
        Workload(**asked["workload"]),
        asked["runs"],
        None if directory is None else Path(directory),
        lambda _: None,
        Turns(),
    )
    sys.stdout.write(json.dumps(report) + "\n")


def _start(workload: Workload, runs: int, directory: Path | None) -> subprocess.Popen[str]:
    place = None if directory is None else str(directory)
    task = {"workload": asdict(workload), "runs": runs, "directory": place}
    return subprocess.Popen(
        [sys.executable, "-m", "chain.benchmark", json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _sample(workload: Workload, payloads: Sequence[bytes]) -> Sequence[bytes]:
    """The first batches, of as many transactions as the baselines need."""
    return payloads[: -(-BASELINE_TRANSACTIONS // workload.batch_transactions)]


def _expect(child: subprocess.Popen[str], word: str) -> None:
    if _line(child).strip() != word:
        raise BenchmarkError("one of the processes failed; its error stands above")


def _line(child: subprocess.Popen[str]) -> str:
    line = "" if child.stdout is None else child.stdout.readline()
    if not line:
        raise BenchmarkError("one of the processes failed; its error stands above")
    return line


def _say_start(child: subprocess.Popen[str]) -> None:
    if child.stdin is not None:
        child.stdin.write(f"{START}\n")
        child.stdin.flush()
