"""The runtime over real gRPC, with a tiny engine behind it."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from assay.v1 import inference_pb2, runtime_pb2, runtime_pb2_grpc
from runtime.engine import Completion, SamplingRule, Step
from runtime.requests import MAX_MESSAGE_BYTES, RefusalReason
from runtime.service import SERVICE_NAME, RuntimeServer, is_loopback
from tests.runtime.serving import (
    LOOPBACK,
    backends,
    generate_request,
    limits,
    reason_of,
    retry_delay_s,
    serving,
)
from tests.runtime.tiny_engine import CONTEXT_TOKENS, TinyEngine

ServingStatus = health_pb2.HealthCheckResponse.ServingStatus
SOON_S = 60.0
"""Nothing here takes nearly as long; a test that waits longer has failed."""
Change = Callable[[runtime_pb2.GenerateRequest], object]


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SOON_S):
        while not await condition():
            await asyncio.sleep(0.02)


async def failure(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


async def read_all(
    stub: "runtime_pb2_grpc.RuntimeAsyncStub",
    request: runtime_pb2.GenerateRequest,
    timeout_s: float = SOON_S,
) -> list[runtime_pb2.GenerateReply]:
    return [reply async for reply in stub.Generate(request, timeout=timeout_s)]


def holding(status: int, channel: grpc.aio.Channel) -> Callable[[], Awaitable[bool]]:
    stub = health_pb2_grpc.HealthStub(channel)

    async def same() -> bool:
        request = health_pb2.HealthCheckRequest(service=SERVICE_NAME)
        return bool((await stub.Check(request)).status == status)

    return same


async def test_a_generation_starts_streams_and_finishes_with_the_same_tokens() -> None:
    engine = TinyEngine()
    async with serving(engine) as target, grpc.aio.insecure_channel(target) as channel:
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        replies = await read_all(stub, generate_request(engine, max_output_tokens=20))
    kinds = [reply.WhichOneof("kind") for reply in replies]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    assert set(kinds[1:-1]) == {"chunk"}
    finished = replies[-1].finished
    assert [i for reply in replies for i in reply.chunk.token_ids] == list(finished.token_ids)
    assert [p for reply in replies for p in reply.chunk.logprobs] == list(finished.logprobs)
    assert "".join(reply.chunk.text for reply in replies) == finished.text
    assert len(finished.token_ids) == 20
    assert finished.finish_reason == inference_pb2.FINISH_REASON_LENGTH
    assert finished.input_tokens == replies[0].started.input_tokens == len("to assay")


async def test_a_verification_scores_an_honest_claim_zero_and_a_changed_one_not() -> None:
    engine = TinyEngine()
    async with serving(engine) as target, grpc.aio.insecure_channel(target) as channel:
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        asked = generate_request(engine)
        claim = (await read_all(stub, asked))[-1].finished
        request = runtime_pb2.VerifyRequest(
            model=asked.model,
            input=asked.input,
            sampling=asked.sampling,
            seed=asked.seed,
            claim=claim,
            fingerprint_positions=[0, 7],
        )
        honest = await stub.Verify(request, timeout=SOON_S)
        request.claim.token_ids[3] = (request.claim.token_ids[3] + 1) % engine.vocabulary
        changed = await stub.Verify(request, timeout=SOON_S)
    assert honest.scores.replay_mismatches == 0
    assert honest.scores.distance_sum == 0
    assert honest.scores.positions == 8
    assert len(honest.fingerprint) == 2
    assert changed.scores.replay_mismatches > 0


async def test_a_claim_with_an_unknown_finish_reason_is_scored_and_not_refused() -> None:
    engine = TinyEngine()
    async with serving(engine) as target, grpc.aio.insecure_channel(target) as channel:
        asked = generate_request(engine)
        claim = inference_pb2.InferenceResult(token_ids=[2**32 - 1], text="?")
        claim.MergeFromString(b"\x18\x63")  # finish_reason = 99
        request = runtime_pb2.VerifyRequest(
            model=asked.model,
            input=asked.input,
            sampling=asked.sampling,
            seed=asked.seed,
            claim=claim,
        )
        reply = await runtime_pb2_grpc.RuntimeStub(channel).Verify(request, timeout=SOON_S)
    assert not reply.scores.finish_plausible
    assert reply.scores.replay_mismatches == 1


async def test_tokenize_and_models_answer() -> None:
    engine = TinyEngine()
    async with serving(engine) as target, grpc.aio.insecure_channel(target) as channel:
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        chat = inference_pb2.Chat(
            messages=[inference_pb2.ChatMessage(role=inference_pb2.ROLE_USER, content="!!")]
        )
        tokenized = await stub.Tokenize(
            runtime_pb2.TokenizeRequest(
                model=engine.package.model_id, input=inference_pb2.InferenceInput(chat=chat)
            )
        )
        models = (await stub.Models(runtime_pb2.ModelsRequest())).models
    assert list(tokenized.token_ids) == [1, 1]
    assert [model.model for model in models] == [engine.package.model_id]
    assert models[0].context_tokens == CONTEXT_TOKENS
    assert models[0].queue_limit == 8


def _set_ids(request: runtime_pb2.GenerateRequest, ids: list[int]) -> None:
    request.input.token_ids.ids.extend(ids)


def _set_chat(request: runtime_pb2.GenerateRequest, count: int, role: int) -> None:
    for _ in range(count):
        message = request.input.chat.messages.add(content="x")
        message.role = inference_pb2.Role.ValueType(role)


REFUSED: dict[str, tuple[Change, str]] = {
    "model id of the wrong length": (lambda r: setattr(r, "model", b"x"), "BAD_MODEL_ID"),
    "no input": (lambda r: r.ClearField("input"), "EMPTY_INPUT"),
    "empty text": (lambda r: setattr(r.input, "text", ""), "EMPTY_INPUT"),
    "a megabyte and more": (
        lambda r: setattr(r.input, "text", "x" * (1 << 20) + "x"),
        "INPUT_TOO_LARGE",
    ),
    "prompt over the context": (
        lambda r: setattr(r.input, "text", "x" * CONTEXT_TOKENS),
        "OVER_CONTEXT",
    ),
    "token ids over the context": (lambda r: _set_ids(r, [1] * CONTEXT_TOKENS), "OVER_CONTEXT"),
    "token id outside the vocabulary": (lambda r: _set_ids(r, [95]), "BAD_TOKEN_ID"),
    "too many messages": (lambda r: _set_chat(r, 257, 2), "TOO_MANY_MESSAGES"),
    "a message without a role": (lambda r: _set_chat(r, 1, 0), "BAD_ROLE"),
    "a role nobody defined": (lambda r: _set_chat(r, 1, 9), "BAD_ROLE"),
    "short seed": (lambda r: setattr(r, "seed", b"x" * 31), "BAD_SEED"),
    "no sampling": (lambda r: r.ClearField("sampling"), "MISSING_SAMPLING"),
    "temperature": (
        lambda r: setattr(r.sampling, "temperature_milli", 5001),
        "TEMPERATURE_TOO_HIGH",
    ),
    "top_k": (lambda r: setattr(r.sampling, "top_k", 65), "TOP_K_TOO_LARGE"),
    "top_p": (lambda r: setattr(r.sampling, "top_p_milli", 1001), "TOP_P_TOO_LARGE"),
    "max_output_tokens 0": (
        lambda r: setattr(r.sampling, "max_output_tokens", 0),
        "MAX_OUTPUT_TOKENS_OUT_OF_RANGE",
    ),
    "max_output_tokens huge": (
        lambda r: setattr(r.sampling, "max_output_tokens", 2**32 - 1),
        "MAX_OUTPUT_TOKENS_OUT_OF_RANGE",
    ),
    "five stop strings": (lambda r: r.sampling.stop.extend("abcde"), "TOO_MANY_STOP_STRINGS"),
    "empty stop string": (lambda r: r.sampling.stop.append(""), "STOP_STRING_LENGTH"),
    "min_tokens": (lambda r: setattr(r.sampling, "min_tokens", 9), "MIN_TOKENS_TOO_LARGE"),
    "logprob ceiling": (
        lambda r: setattr(r.sampling, "logprob_ceiling_milli", 20_001),
        "LOGPROB_CEILING_TOO_LARGE",
    ),
    "long stop string": (lambda r: r.sampling.stop.append("é" * 33), "STOP_STRING_LENGTH"),
}


async def test_every_bound_of_a_request_has_its_own_reason() -> None:
    engine = TinyEngine()
    seen = {}
    async with serving(engine) as target, grpc.aio.insecure_channel(target) as channel:
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        for name, (change, _) in REFUSED.items():
            request = generate_request(engine)
            change(request)
            error = await failure(read_all(stub, request))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, name
            assert error.details(), name
            seen[name] = reason_of(error)
    assert seen == {name: reason for name, (_, reason) in REFUSED.items()}


async def test_an_unknown_model_is_named_with_those_that_are_served() -> None:
    engine = TinyEngine()
    async with serving(engine) as target, grpc.aio.insecure_channel(target) as channel:
        request = generate_request(engine)
        request.model = bytes(32)
        error = await failure(read_all(runtime_pb2_grpc.RuntimeStub(channel), request))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert reason_of(error) == "UNKNOWN_MODEL"
    assert error.details() == (
        f"model {bytes(32).hex()}; this runtime serves {engine.package.model_id.hex()};"
        " start it with this model's package or use another runtime"
    )


async def test_verify_refuses_a_missing_claim_and_too_many_positions() -> None:
    engine = TinyEngine()
    async with serving(engine) as target, grpc.aio.insecure_channel(target) as channel:
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        asked = generate_request(engine)
        request = runtime_pb2.VerifyRequest(
            model=asked.model, input=asked.input, sampling=asked.sampling, seed=asked.seed
        )
        assert reason_of(await failure(stub.Verify(request))) == "MISSING_CLAIM"
        request.claim.text = "x"
        request.fingerprint_positions.extend([0] * 257)
        assert reason_of(await failure(stub.Verify(request))) == "TOO_MANY_POSITIONS"


async def test_a_message_over_the_bound_is_refused_before_it_is_read() -> None:
    engine = TinyEngine()
    async with serving(engine) as target, grpc.aio.insecure_channel(target) as channel:
        request = generate_request(engine, text="x" * (MAX_MESSAGE_BYTES + 1))
        error = await failure(read_all(runtime_pb2_grpc.RuntimeStub(channel), request))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_full_queue_says_when_to_come_back() -> None:
    engine = TinyEngine()
    full = limits(queue_limit=1, running_limit=1)
    async with (
        serving(engine, service_limits=full) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        engine.hold()
        waiting = [asyncio.create_task(read_all(stub, generate_request(engine))) for _ in range(2)]
        await asyncio.to_thread(engine.held.wait, SOON_S)

        async def both_accepted() -> bool:
            model = (await stub.Models(runtime_pb2.ModelsRequest())).models[0]
            return (model.running, model.queued) == (1, 1)

        await eventually(both_accepted)
        error = await failure(read_all(stub, generate_request(engine)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(error) == "QUEUE_FULL"
        assert retry_delay_s(error) > 0
        engine.release()
        assert all(replies[-1].HasField("finished") for replies in await asyncio.gather(*waiting))


async def test_a_deadline_ends_the_generation_and_frees_its_slot() -> None:
    engine = TinyEngine(step_s=0.01)
    async with serving(engine) as target, grpc.aio.insecure_channel(target) as channel:
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        request = generate_request(engine, max_output_tokens=4000)
        error = await failure(read_all(stub, request, timeout_s=0.3))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED

        async def freed() -> bool:
            model = (await stub.Models(runtime_pb2.ModelsRequest())).models[0]
            return model.running == 0 and engine.closed == 1

        await eventually(freed)


async def test_the_wall_time_limit_ends_a_call_that_set_no_deadline() -> None:
    engine = TinyEngine(step_s=0.01)
    async with (
        serving(engine, service_limits=limits(wall_time_s=0.3)) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        request = generate_request(engine, max_output_tokens=4000)
        call = stub.Generate(request)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            async for _ in call:
                pass
    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert reason_of(failed.value) == "DEADLINE_PASSED"


async def test_cancelling_mid_generation_frees_the_slot_for_the_next() -> None:
    engine = TinyEngine(step_s=0.005)
    one = limits(queue_limit=0, running_limit=1)
    async with (
        serving(engine, service_limits=one) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        call = stub.Generate(generate_request(engine, max_output_tokens=4000))
        replies = 0
        async for _ in call:
            replies += 1
            if replies == 3:
                break
        call.cancel()

        async def closed() -> bool:
            return engine.closed == 1

        await eventually(closed)
        after = await read_all(stub, generate_request(engine))
        assert after[-1].HasField("finished")


async def test_an_exception_in_the_engine_fails_its_own_request_only() -> None:
    engine, healthy = TinyEngine(), TinyEngine(package=TinyEngine().package)
    async with serving(engine) as target, grpc.aio.insecure_channel(target) as channel:
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        engine.failure = ZeroDivisionError("a kernel's trouble")
        error = await failure(read_all(stub, generate_request(engine)))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert reason_of(error) == RefusalReason.ENGINE_FAILED
        assert "a kernel's trouble" not in (error.details() or "")
        engine.failure = None
        assert (await read_all(stub, generate_request(healthy)))[-1].HasField("finished")


async def test_health_is_red_until_the_first_token() -> None:
    engine = TinyEngine()
    engine.hold()
    async with (
        serving(engine, wait_ready=False) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        await asyncio.to_thread(engine.held.wait, SOON_S)
        assert await holding(ServingStatus.NOT_SERVING, channel)()
        engine.release()
        await eventually(holding(ServingStatus.SERVING, channel))


async def test_a_hung_engine_turns_health_red_and_recovers() -> None:
    """How soon is tried in test_readiness.py."""
    engine = TinyEngine()
    async with (
        serving(engine, service_limits=limits(stall_s=0.6)) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        await eventually(holding(ServingStatus.SERVING, channel))
        engine.hold()
        await eventually(holding(ServingStatus.NOT_SERVING, channel))
        engine.release()
        await eventually(holding(ServingStatus.SERVING, channel))


async def test_an_idle_engine_is_asked_again_and_again() -> None:
    engine, answered = TinyEngine(), list[int]()
    generate = engine.generate

    def counted(
        prompt_ids: Sequence[int], sampling: SamplingRule, seed: bytes
    ) -> Generator[Step | None, None, Completion]:
        answered.append(len(prompt_ids))
        return generate(prompt_ids, sampling, seed)

    engine.generate = counted  # type: ignore[method-assign]
    async with (
        serving(engine, service_limits=limits(stall_s=0.4)) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):

        async def asked_five_times() -> bool:
            return len(answered) >= 5

        await eventually(asked_five_times)
        await eventually(holding(ServingStatus.SERVING, channel))


async def test_an_engine_that_only_fails_is_not_ready() -> None:
    engine = TinyEngine(failure=ZeroDivisionError("broken"))
    async with (
        serving(engine, service_limits=limits(stall_s=0.2), wait_ready=False) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        await asyncio.sleep(0.5)
        assert await holding(ServingStatus.NOT_SERVING, channel)()
        engine.failure = None
        await eventually(holding(ServingStatus.SERVING, channel))


async def test_stopping_gives_running_calls_their_grace() -> None:
    engine = TinyEngine(step_s=0.01)
    server = RuntimeServer(backends(engine), limits())
    port = await server.start(LOOPBACK, 0)
    await server.wait_ready()
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        call = asyncio.create_task(read_all(stub, generate_request(engine, max_output_tokens=30)))
        await asyncio.sleep(0.1)
        await server.stop(10)
        assert (await call)[-1].HasField("finished")


async def test_a_port_in_use_is_told() -> None:
    engine = TinyEngine()
    async with serving(engine) as target:
        other = RuntimeServer(backends(engine), limits())
        with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1"):
            await other.start(LOOPBACK, int(target.rsplit(":", 1)[1]))


async def test_reflection_lists_the_service() -> None:
    engine = TinyEngine()
    async with serving(engine) as target, grpc.aio.insecure_channel(target) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        names = {
            service.name async for reply in call for service in reply.list_services_response.service
        }
    assert {SERVICE_NAME, "grpc.health.v1.Health"} <= names


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("[::]", False),
        ("10.0.0.1", False),
        ("example.org", False),
    ],
)
def test_only_loopback_counts_as_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
