"""No process of an engine outlives the runtime that was killed."""

import multiprocessing
import os
import signal
import time
from typing import Any

import psutil

from runtime.vllm_engine.parent import die_with_parent

BOUND_S = 60.0


def sleeps_for_ever() -> None:
    die_with_parent()
    time.sleep(3600)


def starts_another(child: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=sleeps_for_ever)
    process.start()
    child.value = process.pid
    time.sleep(3600)


def test_a_child_ends_when_its_parent_is_killed() -> None:
    context = multiprocessing.get_context("spawn")
    child = context.Value("i", 0)
    parent = context.Process(target=starts_another, args=(child,))
    parent.start()
    ends_s = time.monotonic() + BOUND_S
    while child.value == 0 and time.monotonic() < ends_s:
        time.sleep(0.05)
    orphan = psutil.Process(child.value)
    time.sleep(0.5)
    assert orphan.is_running()
    os.kill(parent.pid or 0, signal.SIGKILL)
    parent.join()
    psutil.wait_procs([orphan], timeout=BOUND_S)
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_a_process_that_was_not_started_by_multiprocessing_is_left_alone() -> None:
    before = len(psutil.Process().threads())
    die_with_parent()
    assert len(psutil.Process().threads()) <= before
