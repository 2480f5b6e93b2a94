"""Random requests and results: in order, slightly wrong, and at their bounds."""

from collections.abc import Sequence
from random import Random

from assay.v1 import inference_pb2 as inference
from assay.v1 import transactions_pb2 as pb
from chain.execution import jobs

TEXTS = ("", "why?", "ü€𐍈", "\0", "x" * 200)
KEYS = (b"", bytes(31), bytes(32), bytes(range(32)))
U32_MAX = (1 << 32) - 1


def a_job_operation(
    source: Random, model: bytes, job: bytes, providers: Sequence[bytes] = KEYS
) -> pb.Op:
    """A request for the model or a result of the job; most are well-formed."""
    if source.randrange(2):
        return pb.Op(request_inference=a_varied_request(source, model, providers))
    result = a_varied_result(source) if source.randrange(30) else None
    return pb.Op(submit_result=pb.SubmitResult(job=job, result=result))


def a_varied_request(
    source: Random, model: bytes, providers: Sequence[bytes] = KEYS
) -> pb.RequestInference:
    """Mostly what everybody asks; each field now and then something else."""
    request = pb.RequestInference(
        model=model,
        input=an_input(source),
        sampling=inference.Sampling(max_output_tokens=source.choice([1, 16, 16, 64])),
        max_price=source.choice([5_000_000, 10**7, 10**7, 0]),
    )
    match source.randrange(10):
        case 0:
            request.tier = source.choice([1, 2, 2, 3])  # type: ignore[assignment]
        case 1:
            request.provider = source.choice(providers)
            request.answer_within_ms = source.choice([0, 1])
        case 2:
            request.seed = source.choice(KEYS)
        case 3:
            request.answer_within_ms = source.choice([1, 999, 1_000, 600_000, U32_MAX])
        case 4:
            request.model = source.choice(KEYS)
        case 5:
            request.sampling.CopyFrom(a_sampling(source))
        case 6:
            request.max_price = source.getrandbits(64)
        case _:
            pass
    return request


def an_input(source: Random) -> inference.InferenceInput | None:
    """Of any kind, now and then empty or ill-formed."""
    text = source.choice(TEXTS[source.randrange(2) :])
    match source.randrange(8):
        case 0:
            return None
        case 1:
            return inference.InferenceInput()
        case 2:
            ids = [source.choice([0, 127, 128, U32_MAX]) for _ in range(source.choice([0, 3, 600]))]
            return inference.InferenceInput(token_ids=inference.TokenIds(ids=ids))
        case 3 | 4:
            roles = [source.choice([1, 2, 2, 3, 3, 0, 4]) for _ in range(source.choice([0, 1, 3]))]
            messages = [inference.ChatMessage(role=role, content=text) for role in roles]  # type: ignore[arg-type]
            return inference.InferenceInput(chat=inference.Chat(messages=messages))
        case _:
            return inference.InferenceInput(text=text)


def a_sampling(source: Random) -> inference.Sampling:
    """At its bounds and beyond."""
    return inference.Sampling(
        temperature_milli=source.choice([0, jobs.TEMPERATURE_MILLI_MAX, 5_001]),
        top_k=source.choice([0, jobs.TOP_K_MAX, 65]),
        top_p_milli=source.choice([0, jobs.TOP_P_MILLI_MAX]),
        max_output_tokens=source.choice([0, 16, 511, 512, U32_MAX]),
        stop=[source.choice(["", "a", "b" * 64, "b" * 65]) for _ in range(source.randrange(3))],
        min_tokens=source.choice([0, 0, 16, 17]),
        logprob_ceiling_milli=source.choice([0, jobs.LOGPROB_CEILING_MILLI_MAX, U32_MAX]),
    )


def a_varied_result(
    source: Random, profile: str = "reference/float32"
) -> inference.InferenceResult:
    """Mostly what a provider sends; now and then a field is something else."""
    count = source.choice([1, 8, 8, 8, 16, 17, 0])
    result = inference.InferenceResult(
        token_ids=[source.choice([0, 300, U32_MAX]) for _ in range(count)],
        logprobs=[source.choice([0, -1, -300, -(1 << 31)]) for _ in range(count)],
        finish_reason=inference.FINISH_REASON_LENGTH,
        input_tokens=6,
        text=source.choice(TEXTS),
        engine_profile=profile,
    )
    match source.randrange(12):
        case 0:
            result.logprobs.append(-1)
        case 1 if count:
            result.logprobs[0] = source.choice([0, 1])
        case 2:
            result.finish_reason = source.choice([0, 1, 3, 4])  # type: ignore[assignment]
        case 3:
            result.input_tokens = source.choice([0, 1, 511, 512, U32_MAX])
        case 4:
            result.engine_profile = source.choice(TEXTS)
        case _:
            pass
    return result
