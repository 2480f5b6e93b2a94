"""The client without an event loop, when it is interrupted."""

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from chain.dapp.client import AsyncClient, Client
from chain.dapp.events import Accepted, Event
from tests.builders import key

NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize("moment", ["as it waits", "before it waits"])
def test_ctrl_c_ends_the_question_and_leaves_the_client_usable(
    moment: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    told: list[str] = []
    asked, sent = threading.Event(), threading.Event()
    # Who is started in the background of a shell ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    main = threading.main_thread().ident
    assert main is not None

    async def infer(*_: Any, **__: Any) -> AsyncGenerator[Event, None]:
        asked.set()
        yield Accepted(NOWHERE)
        try:
            signal.pthread_kill(main, signal.SIGINT)
            sent.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            told.append("ended")

    call_soon = asyncio.BaseEventLoop.call_soon_threadsafe

    def slowly(*args: Any, **kwargs: Any) -> asyncio.Handle:
        handle = call_soon(*args, **kwargs)
        if asked.is_set() and threading.current_thread() is threading.main_thread():
            sent.wait(10)
        return handle

    if moment == "before it waits":
        monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", slowly)
    monkeypatch.setattr(AsyncClient, "infer", infer)
    with Client([NOWHERE], key("alice")) as client:
        with pytest.raises(KeyboardInterrupt):
            list(client.infer("gold"))
        assert told == ["ended"]


def test_a_client_that_cannot_start_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="0 nodes"):
        Client([], key("alice"))
    assert threading.active_count() == before
