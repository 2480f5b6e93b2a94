"""What a killed test process leaves running is ended."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.conftest import REPOSITORY

WITHIN_S = 60.0
DETACHED = [sys.executable, "-c", "print(flush=True); import time; time.sleep(3600)"]
TESTS = f"""
import subprocess, time
from tests import reaper
watcher = reaper.watch()
left = subprocess.Popen({DETACHED!r}, stdout=subprocess.PIPE, start_new_session=True)
left.stdout.readline()
print(watcher.pid, left.pid, flush=True)
time.sleep(3600)
"""


def ended(process: psutil.Process) -> bool:
    try:
        process.wait(WITHIN_S)
    except psutil.TimeoutExpired:
        return False
    return True


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_process_started_is_ended_and_nothing_else(sent: signal.Signals) -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-c", TESTS], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        ) as tests,
        subprocess.Popen(DETACHED, stdout=subprocess.DEVNULL) as unrelated,
    ):
        try:
            assert tests.stdout is not None
            watcher, left = map(psutil.Process, map(int, tests.stdout.readline().split()))
            assert left.is_running()
            os.kill(tests.pid, sent)
            assert ended(left)
            assert ended(watcher)
            assert unrelated.poll() is None
        finally:
            tests.kill()
            unrelated.kill()
