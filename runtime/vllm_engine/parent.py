"""An engine core must not outlive the runtime that started it: it would keep the device's memory.

vLLM ends its processes when the runtime stops, but not when the runtime is killed. Our logits
processors are made inside the engine core, or in workers, whose own death pipe follows the core.
"""

import multiprocessing
import os
import signal
import threading


def die_with_parent() -> None:
    """In a process started by multiprocessing, end it as soon as its parent has ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, name="follow-parent", daemon=True).start()
