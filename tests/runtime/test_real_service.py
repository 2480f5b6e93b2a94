"""The runtime as a real process with the real model: answers, judges, and judges cheats."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from assay.v1 import inference_pb2, runtime_pb2
from chain.runtime_client import RuntimeClient
from chain.runtime_replies import Finished
from runtime.packages import ModelPackage
from tests.cheats import Cheat, start_cheat
from tests.runtime.serving import LOOPBACK

START_BOUND_S = 240.0
"""Kernels are compiled at the first start of a machine."""
CALL_BOUND_S = 120.0


@asynccontextmanager
async def runtime_process(package: ModelPackage, folder: Path) -> AsyncIterator[str]:
    """Yield the target of a runtime that has produced a token."""
    port_file = folder / "port"
    arguments = ["--model", str(package.path), "--threads", "1", "--port-file", str(port_file)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "runtime", "serve", *arguments
    )
    try:
        async with asyncio.timeout(START_BOUND_S):
            while not port_file.exists():
                assert process.returncode is None, "the runtime ended while it started"
                await asyncio.sleep(0.1)
            target = f"{LOOPBACK}:{int(port_file.read_text())}"
            async with RuntimeClient(target) as client:
                while not await client.ready():
                    await asyncio.sleep(0.1)
        yield target
    finally:
        if process.returncode is None:
            process.terminate()
        assert await process.wait() == 0


def question(package: ModelPackage) -> runtime_pb2.GenerateRequest:
    message = inference_pb2.ChatMessage(
        role=inference_pb2.ROLE_USER, content="What is the capital of France?"
    )
    return runtime_pb2.GenerateRequest(
        model=package.model_id,
        input=inference_pb2.InferenceInput(chat=inference_pb2.Chat(messages=[message])),
        sampling=inference_pb2.Sampling(temperature_milli=800, max_output_tokens=16),
        seed=bytes(range(32)),
    )


async def result_of(
    client: RuntimeClient, request: runtime_pb2.GenerateRequest
) -> inference_pb2.InferenceResult:
    events = [event async for event in client.generate(request, CALL_BOUND_S)]
    assert isinstance(events[-1], Finished)
    return events[-1].result


@pytest.mark.timeout(600)
async def test_the_real_model_answers_and_its_judge_tells_honest_from_cheated(
    smollm2_package: ModelPackage, tmp_path: Path
) -> None:
    request = question(smollm2_package)
    async with (
        runtime_process(smollm2_package, tmp_path) as target,
        RuntimeClient(target) as client,
    ):
        first, second = await asyncio.gather(result_of(client, request), result_of(client, request))
        assert first == second
        assert first.text
        honest = await client.verify(request, first, [0, 1], CALL_BOUND_S)
        assert honest.scores.replay_mismatches == 0
        assert honest.scores.margin_sum == 0
        assert honest.scores.distance_sum == 0
        assert honest.scores.finish_plausible
        assert honest.scores.text_matches
        for cheat in (Cheat.TOKENS, Cheat.SEED, Cheat.MODEL):
            server, channel, port = await start_cheat(target, cheat)
            async with RuntimeClient(f"{LOOPBACK}:{port}") as cheating:
                claim = await result_of(cheating, request)
            judged = await client.verify(request, claim, [0], CALL_BOUND_S)
            assert judged.scores.replay_mismatches > 0, cheat
            assert judged.scores.margin_max > 0, cheat
            await server.stop(0)
            await channel.close()
