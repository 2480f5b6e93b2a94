"""What a reader of a purchase hears, by when it comes."""

import asyncio
from typing import cast

from chain.dapp.events import Accepted, Event, Restarted, Tokens
from chain.dapp.following import Following
from chain.gateway import replies
from chain.gateway.purchases import Purchase
from tests.chain.gateway.test_book import entry

OLD, NEW = Tokens("old", (1,), ()), Tokens("new", (2,), ())


async def heard(purchase: Purchase) -> list[Event]:
    return [event async for event in purchase.events()]


def test_who_comes_after_an_answer_was_replaced_hears_the_new_one_only() -> None:
    async def run() -> tuple[list[Event], list[Event]]:
        purchase = Purchase(entry(1), cast(Following, None))
        early = purchase.events()
        purchase.add(Accepted("node"))
        first = await anext(early)
        for event in (OLD, Restarted(), NEW):
            purchase.add(event)
        purchase.end(None)
        return [first, *[event async for event in early]], await heard(purchase)

    early, late = asyncio.run(run())
    assert early == [Accepted("node"), OLD, Restarted(), NEW]
    assert late == [NEW]


def test_a_line_that_keeps_a_stream_alive_cannot_be_made_an_answer() -> None:
    for ending in ("\n", "\r", "\r\n", "\n\n"):
        line = replies.comment(f"VERIFIED{ending}data: {{}}{ending}{ending}")
        assert line == b": VERIFIED data: {}\n\n"
