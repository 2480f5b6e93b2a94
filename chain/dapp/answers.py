"""A followed question as one value: what came of it, and how long each part took."""

import time
from collections.abc import AsyncIterator, Callable

from assay.v1 import node_pb2
from chain.asking import Answer
from chain.dapp.events import Accepted, Answered, Event, Progress, Settled, Tokens


async def hear(
    events: AsyncIterator[Event],
    on_event: Callable[[Event], None] = lambda event: None,
    clock_s: Callable[[], float] = time.perf_counter,
) -> Answer:
    """Listen to a question until it is settled; times are from the call. Raises what the source
    does."""
    started_s = clock_s()
    view = node_pb2.JobView()
    reached_ms: dict[type[Event], float] = {}
    async for event in events:
        elapsed_ms = (clock_s() - started_s) * 1000
        if not isinstance(event, Tokens) or event.token_ids:
            reached_ms.setdefault(type(event), elapsed_ms)
        on_event(event)
        match event:
            case Progress():
                view = event.view
            case Settled(receipt=receipt, result=result):
                return Answer(
                    job=receipt.job_receipt.job,
                    status=event.status.name,
                    text="" if result is None else result.text,
                    receipt=receipt,
                    committee=tuple(view.committee),
                    attempts=view.attempts,
                    output_tokens=0 if result is None else len(result.token_ids),
                    accepted_ms=reached_ms.get(Accepted, elapsed_ms),
                    ttft_ms=reached_ms.get(Tokens),
                    answered_ms=reached_ms.get(Answered),
                    verified_ms=elapsed_ms,
                )
    raise RuntimeError("a question ended without being settled")
