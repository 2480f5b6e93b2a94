"""Ends what tests started when their process is gone, however it went.

    python -m tests.reaper MARK

reads its standard input to the end, which comes when the process that holds the other end dies, and
then kills every process that has MARK in its environment. Children inherit it, those that left
their parent's session and group included.
"""

import os
import subprocess
import sys
import uuid
from contextlib import suppress

import psutil

VARIABLE = "ASSAY_TEST_PROCESS"
KILLED_WITHIN_S = 30.0


def watch() -> "subprocess.Popen[bytes]":
    """Mark this process's children to come, and start what ends them after its death."""
    mark = uuid.uuid4().hex
    unmarked = {name: text for name, text in os.environ.items() if name != VARIABLE}
    os.environ[VARIABLE] = mark
    return subprocess.Popen(
        [sys.executable, "-m", "tests.reaper", mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=unmarked,
        start_new_session=True,
    )


def marked(mark: str) -> list[psutil.Process]:
    """The processes that were started under this mark."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(VARIABLE) == mark:
                found.append(process)
    return found


def reap(mark: str) -> list[str]:
    """Kill them, until there are none; what they were."""
    ended = []
    while processes := marked(mark):
        for process in processes:
            with suppress(psutil.Error):
                command = " ".join(process.cmdline())
                process.kill()
                ended.append(f"{process.pid} {command}")
        psutil.wait_procs(processes, timeout=KILLED_WITHIN_S)
    return ended


if __name__ == "__main__":
    sys.stdin.buffer.read()
    for line in reap(sys.argv[1]):
        print(f"ended what a test left behind: {line}", file=sys.stderr)
