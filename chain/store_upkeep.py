"""The store's own thread: checkpoints when they are due, then pruning, in bounded steps."""

import threading
from collections.abc import Callable
from typing import Final

from chain.rocks import StoreError

IDLE_S: Final = 1.0
"""How long it sleeps unless a commit wakes it."""
JOIN_S: Final = 60.0


class Upkeep:
    """Runs `step` until it says that nothing is left, then waits to be woken.

    An error ends the thread; `check` raises it in whoever comes next, so that a node whose tables
    can't follow stops, instead of filling its disk or waiting for ever. That goes for an error of
    ours, too, which the thread leaves to `threading.excepthook`.
    """

    def __init__(self, step: Callable[[], bool]) -> None:
        self._step = step
        self._changed = threading.Condition()
        self._is_woken = False
        self._is_stopped = False
        self._error: StoreError | None = None
        self._thread = threading.Thread(target=self._run, name="store-upkeep", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There may be work."""
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()

    def wait_until(self, has_room: Callable[[], bool]) -> None:
        """Wait for the thread until a condition holds. Raises StoreError if it failed."""
        with self._changed:
            while not has_room() and self._is_running():
                self._is_woken = True
                self._changed.notify_all()
                self._changed.wait(IDLE_S)
        self.check()

    def check(self) -> None:
        """Raise the error that ended the thread, if there was one."""
        if self._error is not None:
            raise StoreError(f"the store's upkeep failed: {self._error}") from self._error
        if not self._is_stopped and not self._thread.is_alive():
            raise StoreError("the store's upkeep failed: its traceback is in the log")

    def _is_running(self) -> bool:
        return self._error is None and not self._is_stopped and self._thread.is_alive()

    def stop(self) -> None:
        """Let the step under way finish, then end the thread."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        try:
            while not self._is_stopped:
                if self._step():
                    with self._changed:
                        self._changed.notify_all()
                    continue
                with self._changed:
                    if not self._is_woken and not self._is_stopped:
                        self._changed.wait(IDLE_S)
                    self._is_woken = False
        except StoreError as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
