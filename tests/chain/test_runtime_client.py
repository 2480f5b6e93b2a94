"""The node's client and an honest runtime, an absent one, one that says what can't be true."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.v1 import inference_pb2, runtime_pb2
from chain.runtime_client import (
    RuntimeClient,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from chain.runtime_replies import (
    Chunk,
    Finished,
    GenerationChecker,
    GenerationEvent,
    ModelInfo,
    ReplyFault,
    RuntimeReplyError,
    Started,
    check_verification,
)
from tests.chain.running_pool import SOON_S, until
from tests.chain.scripted_runtime import (
    CLAIM,
    INFO,
    MODEL,
    REQUEST,
    ScriptedRuntime,
    honest_replies,
    honest_verification,
    serving_bytes,
    serving_scripted,
    start_scripted,
)
from tests.runtime.serving import LOOPBACK, generate_request, limits, serving
from tests.runtime.tiny_engine import TinyEngine

Change = Callable[[list[runtime_pb2.GenerateReply]], object]


@asynccontextmanager
async def client_of(scripted: ScriptedRuntime) -> AsyncIterator[RuntimeClient]:
    async with (
        serving_scripted(scripted) as (target,),
        RuntimeClient(target, jitter=random.Random(1)) as client,
    ):
        yield client


async def collect(
    client: RuntimeClient,
    request: runtime_pb2.GenerateRequest = REQUEST,
    deadline_s: float = SOON_S,
) -> list[GenerationEvent]:
    return [event async for event in client.generate(request, deadline_s)]


async def fault_of(call: Awaitable[object]) -> ReplyFault:
    with pytest.raises(RuntimeReplyError) as refused:
        await call
    return refused.value.reason


async def test_an_honest_stream_comes_through_as_it_was_sent() -> None:
    async with client_of(ScriptedRuntime()) as client:
        assert await collect(client) == [
            Started(1, "exact"),
            Chunk((1, 2), (-1, -2), "a"),
            Chunk((3,), (0,), "b"),
            Chunk((), (), "c"),
            Finished(CLAIM),
        ]


def _repeat_tokens(replies: list[runtime_pb2.GenerateReply]) -> None:
    replies[1].chunk.token_ids.extend([1, 1, 1])
    replies[1].chunk.logprobs.extend([0, 0, 0])


LIES: dict[str, tuple[Change, ReplyFault]] = {
    "no start": (lambda r: r.pop(0), ReplyFault.OUT_OF_ORDER),
    "two starts": (lambda r: r.insert(1, r[0]), ReplyFault.OUT_OF_ORDER),
    "an empty reply": (
        lambda r: r.insert(1, runtime_pb2.GenerateReply()),
        ReplyFault.OUT_OF_ORDER,
    ),
    "finished without a token": (lambda r: r.__delitem__(slice(1, 4)), ReplyFault.OUT_OF_ORDER),
    "more after the end": (lambda r: r.append(r[1]), ReplyFault.OUT_OF_ORDER),
    "no end": (lambda r: r.pop(), ReplyFault.ENDED_EARLY),
    "nothing at all": (lambda r: r.clear(), ReplyFault.ENDED_EARLY),
    "an empty chunk": (
        lambda r: r.insert(1, runtime_pb2.GenerateReply(chunk=runtime_pb2.GenerateReply.Chunk())),
        ReplyFault.EMPTY_CHUNK,
    ),
    "two rests of text": (lambda r: r.insert(3, r[3]), ReplyFault.EMPTY_CHUNK),
    "a log-probability too few": (
        lambda r: r[1].chunk.logprobs.pop(),
        ReplyFault.LENGTHS_DIFFER,
    ),
    "a token outside the vocabulary": (
        lambda r: r[1].chunk.token_ids.__setitem__(0, 10),
        ReplyFault.TOKEN_OUTSIDE_VOCABULARY,
    ),
    "a probability above one": (
        lambda r: r[1].chunk.logprobs.__setitem__(0, 1),
        ReplyFault.POSITIVE_LOGPROB,
    ),
    "more tokens than asked for": (_repeat_tokens, ReplyFault.TOO_MANY_TOKENS),
    "a novel from three tokens": (
        lambda r: setattr(r[2].chunk, "text", "x" * 4000),
        ReplyFault.TOO_MUCH_TEXT,
    ),
    "no input tokens": (
        lambda r: setattr(r[0].started, "input_tokens", 0),
        ReplyFault.BAD_INPUT_TOKENS,
    ),
    "input over the context": (
        lambda r: setattr(r[0].started, "input_tokens", 16),
        ReplyFault.BAD_INPUT_TOKENS,
    ),
    "a profile without a name": (
        lambda r: setattr(r[0].started, "engine_profile", ""),
        ReplyFault.BAD_PROFILE,
    ),
    "a finish nobody defined": (
        lambda r: r[4].finished.MergeFromString(b"\x18\x63"),
        ReplyFault.BAD_FINISH,
    ),
    "other tokens at the end": (
        lambda r: r[4].finished.token_ids.__setitem__(1, 9),
        ReplyFault.FINISHED_DIFFERS,
    ),
    "other log-probabilities at the end": (
        lambda r: r[4].finished.logprobs.__setitem__(1, -9),
        ReplyFault.FINISHED_DIFFERS,
    ),
    "another text at the end": (
        lambda r: setattr(r[4].finished, "text", "abd"),
        ReplyFault.FINISHED_DIFFERS,
    ),
    "another input at the end": (
        lambda r: setattr(r[4].finished, "input_tokens", 2),
        ReplyFault.FINISHED_DIFFERS,
    ),
    "another profile at the end": (
        lambda r: setattr(r[4].finished, "engine_profile", "other"),
        ReplyFault.FINISHED_DIFFERS,
    ),
    "a reply of five megabytes": (
        lambda r: setattr(r[1].chunk, "text", "x" * (5 << 20)),
        ReplyFault.TOO_LARGE,
    ),
}


async def test_a_stream_that_cannot_be_true_is_refused_with_its_reason() -> None:
    scripted, seen = ScriptedRuntime(), {}
    async with client_of(scripted) as client:
        for name, (change, _) in LIES.items():
            scripted.replies = honest_replies()
            change(scripted.replies)
            seen[name] = await fault_of(collect(client))
    assert seen == {name: fault for name, (_, fault) in LIES.items()}


async def test_a_stream_without_end_is_refused_at_the_first_token_too_many() -> None:
    scripted = ScriptedRuntime()
    chunk = runtime_pb2.GenerateReply.Chunk(token_ids=[1], logprobs=[-1], text="x")
    scripted.replies[1:] = [runtime_pb2.GenerateReply(chunk=chunk)] * 1_000
    seen: list[GenerationEvent] = []
    async with client_of(scripted) as client:
        with pytest.raises(RuntimeReplyError, match="5 tokens, at most 4"):
            async for event in client.generate(REQUEST, 10):
                seen.append(event)
    assert len(seen) == 5


async def test_a_million_tokens_in_one_chunk_are_refused() -> None:
    scripted = ScriptedRuntime()
    scripted.replies[1].chunk.token_ids.extend([1] * 1_000_000)
    scripted.replies[1].chunk.logprobs.extend([-1] * 1_000_000)
    async with client_of(scripted) as client:
        assert await fault_of(collect(client)) is ReplyFault.TOO_MANY_TOKENS


async def test_output_past_the_models_context_is_refused() -> None:
    scripted = ScriptedRuntime()
    scripted.replies[0].started.input_tokens = 14  # of 16, so two tokens may come
    async with client_of(scripted) as client:
        assert await fault_of(collect(client)) is ReplyFault.TOO_MANY_TOKENS


@pytest.mark.parametrize(
    ("finish", "least", "bears"),
    [
        (inference_pb2.FINISH_REASON_STOP, 2, True),
        (inference_pb2.FINISH_REASON_STOP, 3, False),
        (inference_pb2.FINISH_REASON_STOP_STRING, 3, True),
        (inference_pb2.FINISH_REASON_STOP_STRING, 4, False),
        (inference_pb2.FINISH_REASON_LENGTH, 4, True),
    ],
)
async def test_output_that_stops_before_min_tokens_is_refused(
    finish: inference_pb2.FinishReason.ValueType, least: int, bears: bool
) -> None:
    """Of the three tokens of a result that stopped, the last is the end token."""
    scripted = ScriptedRuntime()
    scripted.replies[4].finished.finish_reason = finish
    request = runtime_pb2.GenerateRequest()
    request.CopyFrom(REQUEST)
    request.sampling.min_tokens = least
    async with client_of(scripted) as client:
        if bears:
            assert isinstance((await collect(client, request))[-1], Finished)
        else:
            assert await fault_of(collect(client, request)) is ReplyFault.BAD_FINISH


reply_bytes = st.binary(max_size=64)


@settings(max_examples=200, deadline=None)
@given(st.lists(reply_bytes, max_size=4))
def test_arbitrary_replies_never_finish_and_raise_nothing_else(messages: list[bytes]) -> None:
    info = ModelInfo(MODEL, "m", "", "exact", 16, 10, 0, 0, 0, 0)
    checker = GenerationChecker(info, 4)
    try:
        for message in messages:
            try:
                reply = runtime_pb2.GenerateReply.FromString(message)
            except Exception as error:  # noqa: BLE001 - protobuf's DecodeError, as gRPC meets it
                assert type(error).__name__ == "DecodeError"
                return
            checker.accept(reply)
        checker.end()
    except RuntimeReplyError:
        return
    assert len(messages) >= 3, "an accepted stream has a start, tokens and an end"


Reply = runtime_pb2.VerifyReply
SCORE_LIES: dict[str, tuple[Callable[[Reply], object], ReplyFault]] = {
    "no scores": (lambda r: r.ClearField("scores"), ReplyFault.BAD_SCORES),
    "positions": (lambda r: setattr(r.scores, "positions", 4), ReplyFault.BAD_SCORES),
    "mismatches": (lambda r: setattr(r.scores, "replay_mismatches", 4), ReplyFault.BAD_SCORES),
    "outside": (lambda r: setattr(r.scores, "outside_candidates", 4), ReplyFault.BAD_SCORES),
    "max without sum": (lambda r: setattr(r.scores, "margin_max", 1), ReplyFault.BAD_SCORES),
    "sum without max": (lambda r: setattr(r.scores, "distance_sum", 1), ReplyFault.BAD_SCORES),
    "input": (lambda r: setattr(r.scores, "input_tokens", 16), ReplyFault.BAD_SCORES),
    "fingerprint": (lambda r: r.fingerprint.append(-1), ReplyFault.BAD_FINGERPRINT),
    "positive": (lambda r: r.fingerprint.__setitem__(0, 1), ReplyFault.POSITIVE_LOGPROB),
    "profile": (lambda r: setattr(r, "engine_profile", "x" * 129), ReplyFault.BAD_PROFILE),
}


@pytest.mark.parametrize("name", SCORE_LIES)
def test_scores_that_cannot_be_true_are_refused(name: str) -> None:
    change, fault = SCORE_LIES[name]
    info = ModelInfo(MODEL, "m", "", "exact", 16, 10, 0, 0, 0, 0)
    reply = honest_verification()
    assert check_verification(reply, info, 4, CLAIM, [1]).fingerprint == (-5,)
    change(reply)
    with pytest.raises(RuntimeReplyError) as refused:
        check_verification(reply, info, 4, CLAIM, [1])
    assert refused.value.reason is fault


def test_a_claim_longer_than_asked_for_is_scored_as_far_as_asked() -> None:
    info = ModelInfo(MODEL, "m", "", "exact", 16, 10, 0, 0, 0, 0)
    reply = honest_verification()
    reply.scores.positions = 2
    assert check_verification(reply, info, 2, CLAIM, [1]).scores.positions == 2
    with pytest.raises(RuntimeReplyError):
        check_verification(reply, info, 3, CLAIM, [1])


U32_MAX = 2**32 - 1
SINT32_MIN = -(2**31)


@pytest.mark.parametrize(
    "name",
    [
        "positions",
        "replay_mismatches",
        "margin_max",
        "margin_sum",
        "distance_max",
        "distance_sum",
        "outside_candidates",
        "doubt_sum",
        "input_tokens",
    ],
)
def test_no_count_of_a_verification_may_be_as_large_as_its_field(name: str) -> None:
    info = ModelInfo(MODEL, "m", "", "exact", 16, 10, 0, 0, 0, 0)
    reply = honest_verification()
    field = reply.scores.DESCRIPTOR.fields_by_name[name]
    most = 2**64 - 1 if field.type == field.TYPE_UINT64 else U32_MAX
    setattr(reply.scores, name, most)
    with pytest.raises(RuntimeReplyError, match="bad_scores"):
        check_verification(reply, info, 4, CLAIM, [1])


async def test_the_least_log_probability_is_taken_and_no_claim_of_certainty_beyond() -> None:
    scripted = ScriptedRuntime()
    scripted.verification.fingerprint[0] = SINT32_MIN
    async with client_of(scripted) as client:
        assert (await client.verify(REQUEST, CLAIM, [1], 10)).fingerprint == (SINT32_MIN,)
        scripted.verification.fingerprint[0] = 2**31 - 1
        fault = await fault_of(client.verify(REQUEST, CLAIM, [1], 10))
        assert fault is ReplyFault.POSITIVE_LOGPROB


async def test_gigantic_replies_are_refused_for_what_they_are() -> None:
    scripted = ScriptedRuntime()
    async with client_of(scripted) as client:
        await client.models(SOON_S)
        scripted.token_ids = [1] * (5 << 20)
        tokenized = await fault_of(client.tokenize(MODEL, REQUEST.input, 10))
        scripted.token_ids = [1] * 1_000_000
        fitting = await fault_of(client.tokenize(MODEL, REQUEST.input, 10))
        scripted.verification.fingerprint.extend([-1] * (5 << 20))
        verified = await fault_of(client.verify(REQUEST, CLAIM, [1], 10))
        del scripted.verification.fingerprint[1_000_000:]
        fitting_verified = await fault_of(client.verify(REQUEST, CLAIM, [1], 10))
        scripted.models = [INFO] * 65
        listed = await fault_of(client.models(SOON_S))
        scripted.models = [runtime_pb2.ModelInfo(model=MODEL, name="m" * (5 << 20))]
        named = await fault_of(client.models(SOON_S))
    assert (tokenized, verified, named) == (ReplyFault.TOO_LARGE,) * 3
    assert fitting is ReplyFault.BAD_INPUT_TOKENS
    assert fitting_verified is ReplyFault.BAD_FINGERPRINT
    assert listed is ReplyFault.BAD_MODEL


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\xff\xff\xff\xff\x0f"])
async def test_bytes_that_are_no_message_are_refused_wherever_they_come(data: bytes) -> None:
    async with serving_bytes(data) as target, RuntimeClient(target) as client:
        assert not await client.ready()
        assert await fault_of(client.check_health()) is ReplyFault.UNREADABLE
        assert await fault_of(client.models(SOON_S)) is ReplyFault.UNREADABLE
    honest = runtime_pb2.ModelsReply(models=[INFO]).SerializeToString()
    async with serving_bytes(data, honest) as target, RuntimeClient(target) as client:
        assert await fault_of(collect(client)) is ReplyFault.UNREADABLE
        assert await fault_of(client.verify(REQUEST, CLAIM, [1], 10)) is ReplyFault.UNREADABLE
        tokenized = await fault_of(client.tokenize(MODEL, REQUEST.input, 10))
        assert tokenized is ReplyFault.UNREADABLE


async def test_a_model_list_that_cannot_be_true_is_refused() -> None:
    scripted = ScriptedRuntime()
    async with client_of(scripted) as client:
        assert [model.model for model in await client.models(SOON_S)] == [MODEL]
        for models in (
            [INFO, INFO],
            [runtime_pb2.ModelInfo(model=b"short", engine_profile="exact")],
            [
                runtime_pb2.ModelInfo(
                    model=MODEL, engine_profile="exact", context_tokens=2**31, vocabulary=5
                )
            ],
        ):
            scripted.models = models
            assert await fault_of(client.models(SOON_S)) is ReplyFault.BAD_MODEL


async def test_tokenize_refuses_ids_outside_the_vocabulary() -> None:
    scripted = ScriptedRuntime()
    async with client_of(scripted) as client:
        assert await client.tokenize(MODEL, REQUEST.input, SOON_S) == (1, 2)
        scripted.token_ids = [10]
        fault = await fault_of(client.tokenize(MODEL, REQUEST.input, SOON_S))
        assert fault is ReplyFault.TOKEN_OUTSIDE_VOCABULARY
        scripted.token_ids = []
        fault = await fault_of(client.tokenize(MODEL, REQUEST.input, SOON_S))
        assert fault is ReplyFault.BAD_INPUT_TOKENS


async def test_no_runtime_is_unavailable_and_not_a_verdict() -> None:
    async with RuntimeClient(f"{LOOPBACK}:1") as client:
        assert not await client.ready()
        with pytest.raises(RuntimeUnavailableError):
            await client.verify(REQUEST, CLAIM, [], deadline_s=0.5)


async def test_a_silent_runtime_is_unavailable_at_the_deadline() -> None:
    scripted = ScriptedRuntime()
    scripted.silent = True
    async with client_of(scripted) as client:
        with pytest.raises(RuntimeUnavailableError, match="DEADLINE_EXCEEDED"):
            await collect(client, deadline_s=0.3)
        with pytest.raises(RuntimeUnavailableError, match="DEADLINE_EXCEEDED"):
            await client.verify(REQUEST, CLAIM, [], deadline_s=0.3)


async def test_a_runtime_that_is_starting_is_asked_again_until_it_answers() -> None:
    scripted = ScriptedRuntime()
    scripted.unavailable = 2
    async with client_of(scripted) as client:
        assert (await client.verify(REQUEST, CLAIM, [1], deadline_s=SOON_S)).fingerprint == (-5,)
        assert scripted.calls == 3
        scripted.unavailable = 1
        assert isinstance((await collect(client))[-1], Finished)


async def test_a_runtime_that_comes_back_on_its_port_is_found_again() -> None:
    engine = TinyEngine()
    async with serving(engine) as target, RuntimeClient(target) as client:
        await client.check_health(SOON_S)
        request = generate_request(engine)
        assert isinstance((await collect(client, request))[-1], Finished)
        port = int(target.rsplit(":", 1)[1])
    async with RuntimeClient(target) as client:
        waiting = asyncio.create_task(collect(client, request, deadline_s=SOON_S))
        await asyncio.sleep(0.3)
        scripted = ScriptedRuntime()
        scripted.models = [
            runtime_pb2.ModelInfo(
                model=request.model, engine_profile="exact", context_tokens=16, vocabulary=10
            )
        ]
        server, restarted = await start_scripted(scripted, port)
        assert restarted == target
        events = await asyncio.wait_for(waiting, SOON_S)
        assert isinstance(events[-1], Finished)
        await server.stop(0)


async def test_a_refusal_keeps_the_runtimes_reason() -> None:
    engine = TinyEngine()
    async with serving(engine) as target, RuntimeClient(target) as client:
        request = generate_request(engine)
        request.sampling.temperature_milli = 9000
        with pytest.raises(RuntimeRefusedError) as refused:
            await collect(client, request)
        assert refused.value.reason == "TEMPERATURE_TOO_HIGH"
        request.model = bytes(32)
        with pytest.raises(RuntimeRefusedError) as refused:
            await collect(client, request)
        assert refused.value.reason == "UNKNOWN_MODEL"


async def test_a_busy_runtime_is_unavailable_with_the_time_to_come_back() -> None:
    engine = TinyEngine()
    one = limits(queue_limit=0, running_limit=1)
    async with (
        serving(engine, service_limits=one) as target,
        RuntimeClient(target, retries=False) as client,
    ):
        engine.hold()
        busy = asyncio.create_task(collect(client, generate_request(engine)))
        await asyncio.to_thread(engine.held.wait, SOON_S)
        with pytest.raises(RuntimeUnavailableError, match="QUEUE_FULL") as refused:
            await collect(client, generate_request(engine))
        assert refused.value.retry_after_s is not None
        engine.release()
        assert isinstance((await busy)[-1], Finished)


async def test_the_honest_runtime_verifies_its_own_generation() -> None:
    engine = TinyEngine()
    async with serving(engine) as target, RuntimeClient(target) as client:
        request = generate_request(engine)
        finished = (await collect(client, request))[-1]
        assert isinstance(finished, Finished)
        verified = await client.verify(request, finished.result, [0, 1], deadline_s=SOON_S)
        assert verified.scores.replay_mismatches == 0
        assert len(verified.fingerprint) == 2


async def test_closing_the_iterator_cancels_the_work() -> None:
    engine = TinyEngine(step_s=0.005)
    async with serving(engine) as target, RuntimeClient(target) as client:
        events = client.generate(generate_request(engine, max_output_tokens=4000), 60)
        assert isinstance(await anext(events), Started)
        await events.aclose()
        await until(lambda: engine.closed > 0)
        assert engine.closed == 1
