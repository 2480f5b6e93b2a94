"""vLLM as a real process with the real model: its results are the rule's, so are its verdicts."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from assay.v1 import inference_pb2, runtime_pb2, runtime_pb2_grpc
from chain.runtime_client import RuntimeClient
from runtime import requests
from runtime.engine import Scores
from runtime.reference.engine import ReferenceEngine
from runtime.sampling import MARGIN_CLIP
from tests.runtime.serving import reason_of
from tests.runtime.vllm.asking import (
    CALL_BOUND_S,
    ask,
    judged,
    own_result,
    results_of,
)
from tests.runtime.vllm.conftest import PASS_TOKENS, QUEUE_LIMIT, RUNNING_LIMIT, Served

UNITS_PER_NAT = 1 << 20
FLOAT32_DISTANCE_MAX = 400
"""4e-4 nats; measured are 5e-5 between vLLM and the reference engine."""
BFLOAT16_MEAN_DISTANCE_NATS = 0.2
"""Measured are .03 to .1 nats."""
BFLOAT16_MARGIN_MAX_NATS = 1.5
BFLOAT16_MISMATCH_SHARE = 0.15

STORY = "Tell me a story about a smith who tests gold."
HEAT: list[dict[str, Any]] = [
    {"temperature_milli": 0},
    {"temperature_milli": 800},
    {"temperature_milli": 1200},
    {"temperature_milli": 800, "top_p_milli": 900},
    {"temperature_milli": 1200, "top_k": 40},
    {"temperature_milli": 1000, "top_k": 20, "top_p_milli": 700},
    {"temperature_milli": 900, "top_p_milli": 950, "logprob_ceiling_milli": 1500},
    {"temperature_milli": 1200, "min_tokens": 24, "logprob_ceiling_milli": 4000},
]
LONG_TOKENS = 4000
LONG_PROMPT = "Which of these is gold? " + " ".join(
    f"Sample {number} weighs {number * 37 % 101} grains." for number in range(50)
)

pytestmark = pytest.mark.timeout(900)


DEADLINES_S = (5.0, 20.0, 80.0)
"""The first is enough to begin with an answer, unless the machine is slow."""


async def eventually(holds: Callable[[], Awaitable[bool]], bound_s: float) -> None:
    async with asyncio.timeout(bound_s):
        while not await holds():
            await asyncio.sleep(0.1)


def busy(served: Served) -> list[runtime_pb2.GenerateRequest]:
    """As many requests as may run, each longer than any test."""
    return [
        ask(
            served,
            STORY,
            seed=bytes([number]) * 32,
            temperature_milli=5000,
            max_output_tokens=LONG_TOKENS,
        )
        for number in range(RUNNING_LIMIT)
    ]


async def begin_and_hang_up(served: Served, asked: list[runtime_pb2.GenerateRequest]) -> None:
    """Cancel each request after its first token."""
    async with grpc.aio.insecure_channel(served.target) as channel:
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        calls = [stub.Generate(request, timeout=CALL_BOUND_S) for request in asked]
        for call in calls:
            async for reply in call:
                if reply.HasField("chunk"):
                    break
        for call in calls:
            call.cancel()


async def running(served: Served) -> int:
    async with RuntimeClient(served.target) as client:
        (model,) = await client.models(CALL_BOUND_S)
    return model.running


async def idle(served: Served) -> bool:
    return await running(served) == 0


async def serving(served: Served) -> bool:
    async with grpc.aio.insecure_channel(served.target) as channel:
        reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def assert_honest_in_float32(scores: Scores, tokens: int) -> None:
    assert scores.positions == tokens
    assert scores.replay_mismatches == 0
    assert scores.margin_sum == 0
    assert scores.outside_candidates == 0
    assert scores.distance_max <= FLOAT32_DISTANCE_MAX
    assert scores.finish_plausible
    assert scores.text_matches


def assert_honest_in_bfloat16(scores: Scores, tokens: int) -> None:
    assert scores.positions == tokens
    assert scores.replay_mismatches <= 1 + BFLOAT16_MISMATCH_SHARE * tokens
    assert scores.margin_max <= BFLOAT16_MARGIN_MAX_NATS * UNITS_PER_NAT
    assert scores.distance_sum <= BFLOAT16_MEAN_DISTANCE_NATS * UNITS_PER_NAT * tokens
    assert scores.outside_candidates == 0
    assert scores.finish_plausible
    assert scores.text_matches


async def test_float32_results_are_the_rules_own_to_the_reference_engine(
    float32: Served, reference: ReferenceEngine
) -> None:
    asked = [ask(float32, STORY, **rule) for rule in HEAT]
    results = await results_of(float32, asked)
    assert {result.engine_profile for result in results} == {"vllm-0.32/cpu/float32/tp1/pp1"}
    assert len({result.text for result in results}) > 1
    for request, result in zip(asked, results, strict=True):
        verdict = judged(reference, request, result, positions=[0])
        assert_honest_in_float32(verdict.scores, len(result.token_ids))


async def test_float32_confirms_what_the_reference_engine_generated(
    float32: Served, reference: ReferenceEngine
) -> None:
    async with RuntimeClient(float32.target) as client:
        for rule in (*HEAT[:3], *HEAT[-2:]):
            request = ask(float32, STORY, **rule)
            own = own_result(reference, request)
            claim = requests.write_result(own)
            positions = [0, len(own.token_ids) - 1]
            theirs = await client.verify(request, claim, positions, CALL_BOUND_S)
            ours = judged(reference, request, claim, positions)
            assert theirs.scores.replay_mismatches == theirs.scores.margin_sum == 0
            assert theirs.scores.distance_max <= FLOAT32_DISTANCE_MAX
            assert theirs.scores.finish_plausible
            assert theirs.scores.text_matches
            assert theirs.scores.positions == ours.scores.positions
            for one, other in zip(theirs.fingerprint, ours.fingerprint, strict=True):
                assert abs(one - other) <= FLOAT32_DISTANCE_MAX


async def test_both_engines_score_a_cheated_claim_alike(
    float32: Served, reference: ReferenceEngine
) -> None:
    request = ask(float32, STORY, temperature_milli=800)
    (honest,) = await results_of(float32, [request])
    cheated = inference_pb2.InferenceResult()
    cheated.CopyFrom(honest)
    cheated.token_ids[5] = 11_111
    cheated.token_ids[9] = 60_000
    other_seed = ask(float32, STORY, seed=bytes(32), temperature_milli=800)
    async with RuntimeClient(float32.target) as client:
        for asked, claim in ((request, cheated), (other_seed, honest)):
            theirs = await client.verify(asked, claim, [], CALL_BOUND_S)
            ours = judged(reference, asked, claim).scores
            assert theirs.scores.replay_mismatches == ours.replay_mismatches > 3
            assert theirs.scores.outside_candidates == ours.outside_candidates
            assert theirs.scores.finish_plausible == ours.finish_plausible
            assert theirs.scores.text_matches == ours.text_matches
            tolerance = 2 * FLOAT32_DISTANCE_MAX * ours.positions
            assert abs(theirs.scores.margin_sum - ours.margin_sum) <= tolerance
            assert abs(theirs.scores.distance_sum - ours.distance_sum) <= tolerance


async def test_a_claim_after_a_prompt_of_several_passes_is_scored_like_any_other(
    float32: Served, reference: ReferenceEngine
) -> None:
    request = ask(float32, LONG_PROMPT, temperature_milli=800)
    (result,) = await results_of(float32, [request])
    assert result.input_tokens > PASS_TOKENS
    ours = judged(reference, request, result, positions=[0, 1])
    assert_honest_in_float32(ours.scores, len(result.token_ids))
    async with RuntimeClient(float32.target) as client:
        theirs = await client.verify(request, result, [0, 1], CALL_BOUND_S)
    assert_honest_in_float32(requests_scores(theirs.scores), len(result.token_ids))
    for one, other in zip(theirs.fingerprint, ours.fingerprint, strict=True):
        assert abs(one - other) <= FLOAT32_DISTANCE_MAX


async def test_eight_in_flight_get_what_each_would_get_alone(float32: Served) -> None:
    asked = [
        ask(float32, STORY, seed=bytes([number]) * 32, temperature_milli=800)
        for number in range(RUNNING_LIMIT)
    ]
    together = await results_of(float32, asked)
    assert len({tuple(result.token_ids) for result in together}) == RUNNING_LIMIT
    for number in (0, 5):
        (alone,) = await results_of(float32, [asked[number]])
        assert alone.token_ids == together[number].token_ids
        assert alone.text == together[number].text
        pairs = zip(alone.logprobs, together[number].logprobs, strict=True)
        assert all(abs(one - other) <= FLOAT32_DISTANCE_MAX for one, other in pairs)


async def test_bfloat16_is_confirmed_within_its_slack_and_confirms(
    bfloat16: Served, reference: ReferenceEngine
) -> None:
    asked = [ask(bfloat16, STORY, **rule, max_output_tokens=32) for rule in HEAT[:3]]
    results = await results_of(bfloat16, asked)
    async with RuntimeClient(bfloat16.target) as client:
        for request, result in zip(asked, results, strict=True):
            assert result.engine_profile == "vllm-0.32/cpu/bfloat16/tp1/pp1"
            verdict = judged(reference, request, result)
            assert_honest_in_bfloat16(verdict.scores, len(result.token_ids))
            assert verdict.scores.distance_sum > FLOAT32_DISTANCE_MAX * len(result.token_ids)
            own = own_result(reference, request)
            claim = requests.write_result(own)
            theirs = await client.verify(request, claim, [0], CALL_BOUND_S)
            assert_honest_in_bfloat16(requests_scores(theirs.scores), len(own.token_ids))


def requests_scores(message: inference_pb2.Scores) -> Scores:
    names = Scores.__dataclass_fields__
    return Scores(**{name: getattr(message, name) for name in names})


async def test_bfloat16_tells_a_wrong_seed_from_its_own_noise(bfloat16: Served) -> None:
    request = ask(bfloat16, STORY, temperature_milli=800, max_output_tokens=32)
    other = ask(bfloat16, STORY, seed=bytes(32), temperature_milli=800, max_output_tokens=32)
    (result,) = await results_of(bfloat16, [request])
    async with RuntimeClient(bfloat16.target) as client:
        honest = await client.verify(request, result, [], CALL_BOUND_S)
        cheated = await client.verify(other, result, [], CALL_BOUND_S)
    assert_honest_in_bfloat16(requests_scores(honest.scores), len(result.token_ids))
    assert cheated.scores.margin_sum > 10 * honest.scores.margin_sum
    assert cheated.scores.replay_mismatches > 2 * (1 + honest.scores.replay_mismatches)


async def test_a_stop_string_ends_the_output_and_is_no_part_of_its_text(
    float32: Served, reference: ReferenceEngine
) -> None:
    (whole,) = await results_of(float32, [ask(float32, STORY)])
    stop = whole.text[20:26]
    request = ask(float32, STORY, stop=[stop])
    (result,) = await results_of(float32, [request])
    assert result.finish_reason == inference_pb2.FINISH_REASON_STOP_STRING
    assert result.text == whole.text[: whole.text.index(stop)]
    assert_honest_in_float32(judged(reference, request, result).scores, len(result.token_ids))


async def test_min_tokens_keeps_an_output_from_ending(
    float32: Served, reference: ReferenceEngine
) -> None:
    (early,) = await results_of(float32, [ask(float32)])
    assert early.finish_reason == inference_pb2.FINISH_REASON_STOP
    least = len(early.token_ids)
    request = ask(float32, min_tokens=least)
    (late,) = await results_of(float32, [request])
    assert len(late.token_ids) > least
    assert late.token_ids[: least - 1] == early.token_ids[:-1]
    assert_honest_in_float32(judged(reference, request, late).scores, len(late.token_ids))
    async with RuntimeClient(float32.target) as client:
        theirs = await client.verify(request, late, [0], CALL_BOUND_S)
        cheated = await client.verify(request, early, [0], CALL_BOUND_S)
    assert_honest_in_float32(requests_scores(theirs.scores), len(late.token_ids))
    ours = judged(reference, request, early).scores
    for scores in (ours, requests_scores(cheated.scores)):
        assert not scores.finish_plausible
        assert (scores.margin_max, scores.outside_candidates) == (MARGIN_CLIP, 1)


async def test_the_claim_of_nothing_is_judged_without_a_prefill(float32: Served) -> None:
    empty = inference_pb2.InferenceResult()
    async with RuntimeClient(float32.target) as client:
        verdict = await client.verify(ask(float32), empty, [], CALL_BOUND_S)
    assert verdict.scores.positions == 0
    assert not verdict.scores.finish_plausible


async def test_bad_requests_are_refused_with_their_reason(float32: Served) -> None:
    over = ask(float32)
    over.input.token_ids.ids.extend([5] * 8191 + [60_000])
    cases = {
        "OVER_CONTEXT": over,
        "TEMPERATURE_TOO_HIGH": ask(float32, temperature_milli=5001),
        "BAD_SEED": ask(float32, seed=b"short"),
    }
    unknown = ask(float32)
    unknown.input.token_ids.ids.extend([60_000])
    cases["BAD_TOKEN_ID"] = unknown
    async with grpc.aio.insecure_channel(float32.target) as channel:
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        for reason, request in cases.items():
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                async for _ in stub.Generate(request, timeout=CALL_BOUND_S):
                    pass
            assert reason_of(raised.value) == reason


async def test_hanging_up_frees_what_vllm_held(float32: Served) -> None:
    # Three rounds: more than vLLM has places for, so that one that is not freed holds up the last.
    for _ in range(3):
        await begin_and_hang_up(float32, busy(float32))
        await eventually(partial(idle, float32), CALL_BOUND_S)
    assert all(await results_of(float32, [ask(float32)] * RUNNING_LIMIT))


async def test_a_full_queue_refuses(float32: Served) -> None:
    async with grpc.aio.insecure_channel(float32.target) as channel:
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        asked = busy(float32) * (1 + QUEUE_LIMIT // RUNNING_LIMIT)
        calls = [stub.Generate(request, timeout=CALL_BOUND_S) for request in asked]

        async def full() -> bool:
            async with RuntimeClient(float32.target) as client:
                (model,) = await client.models(CALL_BOUND_S)
            return (model.running, model.queued) == (RUNNING_LIMIT, QUEUE_LIMIT)

        await eventually(full, CALL_BOUND_S)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in stub.Generate(ask(float32), timeout=CALL_BOUND_S):
                pass
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(refused.value) == "QUEUE_FULL"
        for call in calls:
            call.cancel()
    await eventually(partial(idle, float32), CALL_BOUND_S)


async def test_a_deadline_ends_what_runs(float32: Served) -> None:
    async with grpc.aio.insecure_channel(float32.target) as channel:
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        kinds: set[str | None] = set()
        for deadline_s in DEADLINES_S:
            call = stub.Generate(busy(float32)[0], timeout=deadline_s)
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                async for reply in call:
                    kinds.add(reply.WhichOneof("kind"))
            assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if "chunk" in kinds:
                break
        assert kinds == {"started", "chunk"}
    await eventually(partial(idle, float32), CALL_BOUND_S)


async def test_a_hung_engine_turns_readiness_red_and_a_woken_one_green(float32: Served) -> None:
    core: psutil.Process = float32.engine_core()
    assert await serving(float32)

    async def red() -> bool:
        return not await serving(float32)

    core.suspend()
    try:
        await eventually(red, CALL_BOUND_S)
        async with RuntimeClient(float32.target) as client:
            assert not await client.ready()
    finally:
        core.resume()

    async def green() -> bool:
        return await serving(float32)

    await eventually(green, CALL_BOUND_S)
    assert (await results_of(float32, [ask(float32)]))[0].text
