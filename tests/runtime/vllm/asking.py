"""Requests to a served model, and the reference engine's answers to the same ones."""

import asyncio
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

from assay.v1 import inference_pb2, runtime_pb2
from chain.runtime_client import RuntimeClient
from chain.runtime_replies import Finished
from runtime import requests
from runtime.engine import Completion, Verification
from runtime.reference.engine import ReferenceEngine
from tests.runtime.vllm.conftest import Served

ResultT = TypeVar("ResultT")
CALL_BOUND_S = 200.0
SEED = bytes(range(7, 39))


def ask(
    served: Served,
    prompt: str = "What is the capital of France?",
    seed: bytes = SEED,
    **sampling: Any,
) -> runtime_pb2.GenerateRequest:
    """A chat with one question; greedy, 24 tokens, unless told otherwise."""
    message = inference_pb2.ChatMessage(role=inference_pb2.ROLE_USER, content=prompt)
    rule = {"temperature_milli": 0, "max_output_tokens": 24, **sampling}
    return runtime_pb2.GenerateRequest(
        model=served.package.model_id,
        input=inference_pb2.InferenceInput(chat=inference_pb2.Chat(messages=[message])),
        sampling=inference_pb2.Sampling(**rule),
        seed=seed,
    )


async def result_of(
    client: RuntimeClient, request: runtime_pb2.GenerateRequest
) -> inference_pb2.InferenceResult:
    events = [event async for event in client.generate(request, CALL_BOUND_S)]
    assert isinstance(events[-1], Finished)
    return events[-1].result


async def results_of(
    served: Served, asked: Sequence[runtime_pb2.GenerateRequest]
) -> list[inference_pb2.InferenceResult]:
    """All at once."""
    async with RuntimeClient(served.target) as client:
        return list(await asyncio.gather(*(result_of(client, request) for request in asked)))


def drained(work: Generator[Any, None, ResultT]) -> ResultT:
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: ResultT = stop.value
            return result


def prompt_ids(engine: ReferenceEngine, request: runtime_pb2.GenerateRequest) -> list[int]:
    return engine.tokenize(requests.read_input(request.input, engine.context_tokens))


def own_result(engine: ReferenceEngine, request: runtime_pb2.GenerateRequest) -> Completion:
    """The reference engine's result of a request."""
    rule = requests.read_sampling(request.sampling, engine.context_tokens)
    return drained(engine.generate(prompt_ids(engine, request), rule, request.seed))


def judged(
    engine: ReferenceEngine,
    request: runtime_pb2.GenerateRequest,
    result: inference_pb2.InferenceResult,
    positions: Sequence[int] = (),
) -> Verification:
    """The reference engine's verdict on a result."""
    rule = requests.read_sampling(request.sampling, engine.context_tokens)
    claim = requests.read_claim(result)
    ids = prompt_ids(engine, request)
    return drained(engine.verify(ids, rule, request.seed, claim, positions))
