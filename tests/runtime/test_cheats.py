"""The cheats cheat in the way they say, and an honest verifier's scores show it."""

import asyncio
import sys
from pathlib import Path

import pytest

from chain.runtime_client import RuntimeClient, RuntimeUnavailableError
from chain.runtime_replies import Finished
from tests.cheats import Cheat, start_cheat
from tests.runtime.serving import LOOPBACK, generate_request, serving
from tests.runtime.tiny_engine import TinyEngine, tiny_package

SOON_S = 60.0


async def finished_of(client: RuntimeClient, engine: TinyEngine) -> Finished:
    events = [event async for event in client.generate(generate_request(engine), SOON_S)]
    assert isinstance(events[-1], Finished)
    return events[-1]


@pytest.mark.parametrize(
    ("cheat", "by_other_model"),
    [(Cheat.TOKENS, False), (Cheat.SEED, False), (Cheat.MODEL, False), (Cheat.MODEL, True)],
)
async def test_a_cheated_generation_is_well_formed_and_scores_badly(
    cheat: Cheat, by_other_model: bool
) -> None:
    engine, other = TinyEngine(), TinyEngine(package=tiny_package("other"))
    other_model = other.package.model_id if by_other_model else None
    async with serving(engine, other) as target, RuntimeClient(target) as judge:
        server, channel, port = await start_cheat(target, cheat, other_model=other_model)
        async with RuntimeClient(f"{LOOPBACK}:{port}") as client:
            await client.check_health(SOON_S)
            cheated = (await finished_of(client, engine)).result
        honest = (await finished_of(judge, engine)).result
        assert list(cheated.token_ids) != list(honest.token_ids)
        verified = await judge.verify(generate_request(engine), cheated, [], SOON_S)
        assert verified.scores.replay_mismatches > 0
        verified = await judge.verify(generate_request(engine), honest, [], SOON_S)
        assert verified.scores.replay_mismatches == 0
        await server.stop(0)
        await channel.close()


async def test_the_silent_cheat_answers_everything_but_generate(tmp_path: Path) -> None:
    engine, port_file = TinyEngine(), tmp_path / "port"
    async with serving(engine) as target:
        arguments = ["--upstream", target, "--cheat", "silent", "--port-file", str(port_file)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.cheats", *arguments
        )
        async with asyncio.timeout(SOON_S):
            while not port_file.exists():
                await asyncio.sleep(0.02)
        async with RuntimeClient(f"{LOOPBACK}:{int(port_file.read_text())}") as client:
            await client.check_health(SOON_S)
            assert [model.model for model in await client.models(SOON_S)] == [
                engine.package.model_id
            ]
            with pytest.raises(RuntimeUnavailableError, match="DEADLINE_EXCEEDED"):
                async for _ in client.generate(generate_request(engine), 0.5):
                    pass
        process.terminate()
        assert await asyncio.wait_for(process.wait(), SOON_S) == 0
