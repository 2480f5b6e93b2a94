"""A pool speaks with one engine profile a model: what was announced on chain is what answers."""

from contextlib import AsyncExitStack

from chain.runtime_pool import RuntimePool
from chain.runtime_replies import Finished
from tests.chain.running_pool import SOON_S, running, until
from tests.runtime.serving import generate_request, serving
from tests.runtime.tiny_engine import TinyEngine


async def test_a_runtime_of_another_profile_than_the_first_is_never_asked() -> None:
    profiles = ("first", "other", "first")
    async with AsyncExitStack() as stack:
        engines = [TinyEngine(profile=profile) for profile in profiles]
        targets = [await stack.enter_async_context(serving(engine)) for engine in engines]
        pool = await stack.enter_async_context(running(RuntimePool(targets)))
        await until(lambda: all(state.healthy for state in pool.states()))
        (info,) = await pool.models()
        assert info.engine_profile == "first"
        request = generate_request(engines[0])
        for _ in range(4):
            *_, last = [event async for event in pool.generate(request, SOON_S)]
            assert isinstance(last, Finished)
            assert last.result.engine_profile == "first"
            verified = await pool.verify(request, last.result, [0], SOON_S)
            assert verified.engine_profile == "first"


async def test_while_the_first_is_out_nobody_speaks_for_it_with_another_profile() -> None:
    async with AsyncExitStack() as stack:
        first, other = (TinyEngine(profile=profile) for profile in ("first", "other"))
        serving_first = AsyncExitStack()
        targets = [
            await serving_first.enter_async_context(serving(first)),
            await stack.enter_async_context(serving(other)),
        ]
        pool = await stack.enter_async_context(running(RuntimePool(targets)))
        await until(lambda: all(state.healthy for state in pool.states()))
        await serving_first.aclose()
        await until(lambda: not pool.states()[0].healthy)
        assert pool.states()[1].healthy
        assert await pool.models() == ()
