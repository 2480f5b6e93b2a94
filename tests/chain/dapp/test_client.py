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


def test_ctrl_c_ends_the_question_and_leaves_the_client_usable(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    told: list[str] = []
    # Who is started in the background of a shell ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    main = threading.main_thread().ident
    assert main is not None

    async def infer(*_: Any, **__: Any) -> AsyncGenerator[Event, None]:
        yield Accepted(NOWHERE)
        try:
            signal.pthread_kill(main, signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            told.append("ended")

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
