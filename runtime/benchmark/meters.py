"""Readings of the process tree: processor time and resident memory (Linux)."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from runtime.benchmark.costs import Cost

PROC: Final = Path("/proc")
RESET_PEAK: Final = "5"
"""What Linux takes for: forget the greatest resident size so far (proc(5), clear_refs)."""
TICK_S: Final = 1.0 / os.sysconf("SC_CLK_TCK")
KIB: Final = 1 << 10
MIB: Final = 1 << 20


def tree() -> list[psutil.Process]:
    """This process and all it started."""
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def cpu_s() -> float:
    """Processor seconds of the tree so far."""
    total = 0.0
    for process in tree():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def machine_cpu_s() -> float:
    """Processor seconds that everybody on this machine has used since it started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def forget_peaks() -> None:
    """Let `peak_bytes` start anew; where that is not allowed it stays that of the whole run."""
    for process in tree():
        with suppress(OSError):
            (PROC / str(process.pid) / "clear_refs").write_text(RESET_PEAK)


def peak_bytes() -> int:
    """Greatest resident sizes of the processes of the tree, added up.

    They need not have been that large at the same time, and pages they share count in each.
    """
    total = 0
    for process in tree():
        with suppress(OSError):
            total += read_peak_bytes((PROC / str(process.pid) / "status").read_text())
    return total


def read_peak_bytes(status: str) -> int:
    """VmHWM of a /proc/PID/status; 0 for a process that has none."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * KIB
    return 0


@dataclass(frozen=True, slots=True)
class Reading:
    """Both clocks at one moment."""

    wall_s: float
    cpu_s: float

    def cost_since(self, before: "Reading", tokens: int) -> Cost:
        """What came between; a cost too small for the clock of processes is one tick of it."""
        cpu_s = max(self.cpu_s - before.cpu_s, TICK_S)
        return Cost(self.wall_s - before.wall_s, cpu_s, tokens)


Meter = Callable[[], Reading]


def read() -> Reading:
    """The real meter."""
    return Reading(time.perf_counter(), cpu_s())
