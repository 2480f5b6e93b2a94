"""What is read of the process tree."""

import subprocess
import sys

from runtime.benchmark import meters
from runtime.benchmark.costs import Cost
from runtime.benchmark.meters import MIB, TICK_S, Reading

HELD_BYTES = 200 * MIB


def test_a_cost_is_what_came_between_two_readings() -> None:
    before, after = Reading(10.0, 3.0), Reading(12.5, 4.0)
    assert after.cost_since(before, 7) == Cost(2.5, 1.0, 7)


def test_a_cost_below_the_clocks_resolution_is_one_tick() -> None:
    assert Reading(1.5, 3.0).cost_since(Reading(1.0, 3.0), 1) == Cost(0.5, TICK_S, 1)


def test_processor_time_of_what_this_process_started_counts() -> None:
    spin = "import time\ninput()\nwhile time.process_time() < .5: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        before_s = meters.cpu_s()
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
        child.stdout.readline()
        assert meters.cpu_s() - before_s > 0.3
        child.kill()


def test_peaks_are_of_all_processes_and_can_be_forgotten() -> None:
    hold = f"held = bytearray(b'1') * {HELD_BYTES}\ndel held\nprint(flush=True)\ninput()"
    base = meters.peak_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with_child = meters.peak_bytes()
        assert with_child > base + HELD_BYTES
        meters.forget_peaks()
        assert meters.peak_bytes() < with_child - HELD_BYTES // 2
        child.kill()


def test_a_peak_is_read_as_linux_writes_it() -> None:
    assert meters.read_peak_bytes("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n") == 2 * MIB
    assert meters.read_peak_bytes("Name:\tkthreadd\n") == 0
