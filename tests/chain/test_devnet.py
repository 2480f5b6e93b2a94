"""What is known of a devnet's processes."""

import subprocess
import sys
import time

import psutil

from chain.devnet import ProcessRecord, alive

FIRST_THREAD_ENDS = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).syscall(60, 0)  # exit, of this thread alone
"""


def test_a_process_is_alive_until_its_last_thread_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", FIRST_THREAD_ENDS], stdin=subprocess.PIPE)
    watched = psutil.Process(process.pid)
    record = ProcessRecord(pid=process.pid, started_s=watched.create_time())
    try:
        deadline_s = time.monotonic() + 60
        while watched.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert alive(record)
    finally:
        process.kill()
    process.wait(60)
    assert not alive(record)
