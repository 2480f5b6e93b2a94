"""The two operations of a job: asking for an inference, and answering it.

Each has two halves. `read_request` and `read_result` refuse what no state could make right;
`ext.bodies` does the same natively, within LIMITS, to what is canonical and alone in its
transaction. `open_job` and `answer_job` do the rest for both ways, and refuse before they write.
"""

from typing import NamedTuple

from assay.v1 import inference_pb2 as inference
from assay.v1 import transactions_pb2 as pb
from chain.execution import capacity
from chain.execution.market import check_provider_key, price_floors, price_needed
from chain.execution.scope import Scope
from chain.records import PROFILE_BYTES_MAX, Job, JobStatus, Model, Tier
from chain.rejections import Rejection, RejectionReason
from chain.state import ACCOUNT_BYTES, ID_BYTES, TableNumber
from chain.transactions import result_bytes
from ext.bodies import JobLimits
from ext.hashing import tagged_hash

_ROLES = (inference.ROLE_SYSTEM, inference.ROLE_USER, inference.ROLE_ASSISTANT)
_FINISH_REASONS = (
    inference.FINISH_REASON_STOP,
    inference.FINISH_REASON_LENGTH,
    inference.FINISH_REASON_STOP_STRING,
)
_TIERS: dict[int, Tier] = {
    pb.TIER_UNSPECIFIED: Tier.STANDARD,
    pb.TIER_STANDARD: Tier.STANDARD,
    pb.TIER_CRITICAL: Tier.CRITICAL,
}

TEMPERATURE_MILLI_MAX = 5_000
TOP_K_MAX = 64
TOP_P_MILLI_MAX = 1_000
LOGPROB_CEILING_MILLI_MAX = 20_000
STOP_STRINGS_MAX = 4
STOP_BYTES_MAX = 64
MESSAGES_MAX = 256
SEED_BYTES = 32
PROMPT_BYTES_PER_TOKEN_MAX = 16
"""A generous bound: the exact count of tokens is known to the runtime only."""
TEMPLATE_TOKENS_MAX = 256
"""That a chat template adds beside what it puts round each message, which takes no more tokens than
the message's own fields take bytes."""
RESULT_TEXT_BYTES_MAX = 1 << 16
LIMITS = JobLimits(
    temperature_milli_max=TEMPERATURE_MILLI_MAX,
    top_k_max=TOP_K_MAX,
    top_p_milli_max=TOP_P_MILLI_MAX,
    logprob_ceiling_milli_max=LOGPROB_CEILING_MILLI_MAX,
    stop_strings_max=STOP_STRINGS_MAX,
    stop_bytes_max=STOP_BYTES_MAX,
    messages_max=MESSAGES_MAX,
    text_bytes_max=RESULT_TEXT_BYTES_MAX,
    tier_max=max(_TIERS),
    role_max=max(_ROLES),
    finish_reason_max=max(_FINISH_REASONS),
)


def request_digest(request: bytes) -> bytes:
    """Digest of a RequestInference, as signed."""
    return tagged_hash(b"request", request)


def result_digest(result: bytes) -> bytes:
    """Digest of an InferenceResult, as signed."""
    return tagged_hash(b"result", result)


_NEW_JOB = Job(
    requester=bytes(ACCOUNT_BYTES),
    model=bytes(ID_BYTES),
    request_digest=bytes(ID_BYTES),
    tier=Tier.STANDARD,
    max_price=0,
    escrow=0,
    input_tokens_max=0,
    max_output_tokens=0,
    pinned_provider=None,
    requested_height=0,
    requested_ms=0,
    answer_within_ms=0,
    status=JobStatus.REQUESTED,
    attempts=0,
    provider=None,
    operator=0,
    engine_profile="",
    input_price=0,
    output_price=0,
    seed=None,
    deadline_ms=0,
    result_digest=None,
    answered_height=0,
    draw_height=0,
    input_tokens=0,
    output_tokens=0,
    round=0,
    audit_beacon=None,
    committee=(),
    tried=(),
    escalated=False,
    redrawn=False,
    final_height=0,
    trap=False,
    lost=0,
    burned=0,
    appealed=False,
)
"""Of nobody yet: a request fills in what it says."""


class Request(NamedTuple):
    """What execution needs of a RequestInference that is in order, whatever the state.

    `ext.bodies` reads the same out of a canonical one.
    """

    model: bytes
    input_tokens: int
    """0 unless the input is token ids."""
    input_bytes: int
    """0 if it is."""
    output_tokens: int
    max_price: int
    tier: int
    """Of the schema."""
    provider: bytes | None
    answer_within_ms: int
    seed: bytes | None
    digest: bytes
    signed: bytes


class Result(NamedTuple):
    """The same of a SubmitResult."""

    job: bytes
    input_tokens: int
    output_tokens: int
    engine_profile: str
    digest: bytes
    signed: bytes
    """The InferenceResult in it."""


def request_inference(
    scope: Scope, sender: bytes, message: pb.RequestInference, signed: bytes, new_job: bytes
) -> None:
    """Open a job as the message asks."""
    open_job(scope, sender, read_request(message, signed), new_job)


def submit_result(scope: Scope, sender: bytes, message: pb.SubmitResult, signed: bytes) -> None:
    """Answer a job with the message."""
    answer_job(scope, sender, read_result(message, signed))


def read_request(message: pb.RequestInference, signed: bytes) -> Request:
    """Refuse what no state could make right. Raises Rejection."""
    # Each field is read once: every look into a message makes an object.
    sampling, seed, tier = message.sampling, message.seed, message.tier
    input_tokens, input_bytes = check_input(message.input)
    check_sampling(sampling)
    if tier not in _TIERS:
        raise Rejection(RejectionReason.MALFORMED, f"tier {tier} is unknown")
    if len(seed) not in (0, SEED_BYTES):
        raise Rejection(
            RejectionReason.BAD_SAMPLING,
            f"the seed has {len(seed)} bytes, must be {SEED_BYTES} or 0",
        )
    return Request(
        model=message.model,
        input_tokens=input_tokens,
        input_bytes=input_bytes,
        output_tokens=sampling.max_output_tokens,
        max_price=message.max_price,
        tier=tier,
        provider=check_provider_key(message.provider),
        answer_within_ms=message.answer_within_ms,
        seed=seed or None,
        digest=request_digest(signed),
        signed=signed,
    )


def open_job(scope: Scope, sender: bytes, request: Request, new_job: bytes) -> None:
    """Open a job and move its highest price into escrow. What is refused has changed nothing."""
    identity, max_price, output_tokens = request.model, request.max_price, request.output_tokens
    model = scope.model(identity)
    check_fits(request, model.context_tokens)
    check_output_limit(scope, output_tokens, model)
    tier = _TIERS[request.tier]
    input_tokens_max = request.input_tokens or input_tokens_bound(
        len(request.signed), model.context_tokens
    )
    seat_price = scope.parameters.seat_price(input_tokens_max, output_tokens)
    floors = price_floors(scope, identity, request.provider, tier)
    _check_price(max_price, input_tokens_max, output_tokens, seat_price, floors)
    within_ms = _answer_within_ms(scope, request.answer_within_ms)
    capacity.check_record_room(TableNumber.JOBS, len(scope.state.jobs))
    scope.debit(sender, max_price)
    job = _NEW_JOB._replace(
        requester=sender,
        model=identity,
        request_digest=request.digest,
        tier=tier,
        max_price=max_price,
        escrow=max_price,
        input_tokens_max=input_tokens_max,
        max_output_tokens=output_tokens,
        pinned_provider=request.provider,
        requested_height=scope.height,
        requested_ms=scope.timestamp_ms,
        answer_within_ms=within_ms,
        seed=request.seed,
        deadline_ms=scope.timestamp_ms + scope.parameters.assign_within_ms,
    )
    scope.payloads.append((request.digest, request.signed))
    scope.put_job(new_job, job, before=None)


def read_result(message: pb.SubmitResult, signed: bytes) -> Result:
    """Refuse what no job could have as its result. Raises Rejection."""
    answer = message.result
    count, logprobs, input_tokens = len(answer.token_ids), answer.logprobs, answer.input_tokens
    if count == 0:
        raise _bad_result("token_ids is empty")
    if len(logprobs) != count:
        raise _bad_result(f"{len(logprobs)} log-probabilities for {count} tokens")
    if max(logprobs) > 0:
        raise _bad_result("a log-probability is above 0")
    if answer.finish_reason not in _FINISH_REASONS:
        raise _bad_result(f"finish_reason {answer.finish_reason} is unknown")
    if input_tokens == 0:
        raise _bad_result("input_tokens is 0, must be at least 1")
    if len(answer.text.encode()) > RESULT_TEXT_BYTES_MAX:
        raise _bad_result(f"the text has more than {RESULT_TEXT_BYTES_MAX} bytes")
    result = result_bytes(signed)
    return Result(
        job=message.job,
        input_tokens=input_tokens,
        output_tokens=count,
        engine_profile=answer.engine_profile,
        digest=result_digest(result),
        signed=result,
    )


def answer_job(scope: Scope, sender: bytes, result: Result) -> None:
    """Record the assigned provider's answer; the audit starts two blocks later. What is refused has
    changed nothing."""
    identity = result.job
    job = scope.job(identity)
    if job.status is not JobStatus.ASSIGNED:
        raise Rejection(
            RejectionReason.JOB_NOT_OPEN,
            f"job {identity.hex()} is {job.status.name}, a result needs ASSIGNED",
        )
    if job.provider != sender:
        raise Rejection(
            RejectionReason.NOT_ASSIGNED_TO_YOU, f"job {identity.hex()} is another provider's"
        )
    # No look at the deadline: a late job left ASSIGNED before the block's transactions.
    check_answers(result, job, scope.model(job.model))
    offer = scope.offer(job.model, sender)
    scope.put_offer(job.model, sender, offer._replace(open_jobs=offer.open_jobs - 1))
    answered = job._replace(
        status=JobStatus.ANSWERED,
        result_digest=result.digest,
        answered_height=scope.height,
        draw_height=scope.height + scope.parameters.audit_delay_blocks,
        deadline_ms=scope.timestamp_ms + scope.parameters.audit_within_ms,
        input_tokens=result.input_tokens,
        output_tokens=result.output_tokens,
    )
    scope.payloads.append((result.digest, result.signed))
    scope.put_job(identity, answered, before=job.status)


def check_input(prompt: inference.InferenceInput) -> tuple[int, int]:
    """(number of token ids, bytes of text), one of them 0. Raises Rejection for an input that is
    empty or ill-formed."""
    kind = prompt.WhichOneof("kind")
    if kind is None:
        raise _bad_input("give text, chat or token_ids")
    if kind == "token_ids":
        count = len(prompt.token_ids.ids)
        if count == 0:
            raise _bad_input("token_ids is empty")
        return count, 0
    if kind == "text":
        size = len(prompt.text.encode())
    else:
        messages = prompt.chat.messages
        if not 1 <= len(messages) <= MESSAGES_MAX:
            raise _bad_input(f"the chat has {len(messages)} messages, needs 1 to {MESSAGES_MAX}")
        if any(message.role not in _ROLES for message in messages):
            raise _bad_input("each message needs the role system, user or assistant")
        size = sum(len(message.content.encode()) for message in messages)
    if size == 0:
        raise _bad_input("the prompt is empty")
    return 0, size


def input_tokens_bound(request_bytes: int, context_tokens: int) -> int:
    """How many tokens the prompt of a RequestInference of so many bytes can have.

    A token takes a byte of the prompt at least. What a prompt has beyond it, by a template longer
    than TEMPLATE_TOKENS_MAX, is at the provider's risk.
    """
    return min(context_tokens - 1, request_bytes + TEMPLATE_TOKENS_MAX)


def check_fits(request: Request, context_tokens: int) -> None:
    """Refuse an input that cannot fit the context. Raises Rejection."""
    count, size = request.input_tokens, request.input_bytes
    if count >= context_tokens:
        raise _too_long(f"{count} tokens, the context of {context_tokens} must leave one free")
    if size > context_tokens * PROMPT_BYTES_PER_TOKEN_MAX:
        raise _too_long(
            f"{size} bytes, at most {context_tokens * PROMPT_BYTES_PER_TOKEN_MAX} can fit a "
            f"context of {context_tokens} tokens"
        )


def check_sampling(sampling: inference.Sampling) -> None:
    """Refuse sampling outside of the protocol's ranges. Raises Rejection."""
    if sampling.temperature_milli > TEMPERATURE_MILLI_MAX:
        raise _above("temperature_milli", sampling.temperature_milli, TEMPERATURE_MILLI_MAX)
    if sampling.top_k > TOP_K_MAX:
        raise _above("top_k", sampling.top_k, TOP_K_MAX)
    if sampling.top_p_milli > TOP_P_MILLI_MAX:
        raise _above("top_p_milli", sampling.top_p_milli, TOP_P_MILLI_MAX)
    if sampling.min_tokens > sampling.max_output_tokens:
        raise _above("min_tokens", sampling.min_tokens, sampling.max_output_tokens)
    if sampling.logprob_ceiling_milli > LOGPROB_CEILING_MILLI_MAX:
        ceiling = sampling.logprob_ceiling_milli
        raise _above("logprob_ceiling_milli", ceiling, LOGPROB_CEILING_MILLI_MAX)
    stops = sampling.stop
    if len(stops) > STOP_STRINGS_MAX:
        raise _above("the number of stop strings", len(stops), STOP_STRINGS_MAX)
    if any(not 1 <= len(text.encode()) <= STOP_BYTES_MAX for text in stops):
        raise _bad_sampling(f"each stop string needs 1 to {STOP_BYTES_MAX} bytes")


def check_output_limit(scope: Scope, output_tokens: int, model: Model) -> None:
    """Refuse a number of output tokens that no result can have. Raises Rejection."""
    limit = min(model.context_tokens - 1, scope.parameters.output_tokens_max)
    if not 1 <= output_tokens <= limit:
        raise Rejection(
            RejectionReason.MAX_TOKENS_OUT_OF_RANGE,
            f"max_output_tokens is {output_tokens}, this model allows 1 to {limit}",
        )


def check_answers(result: Result, job: Job, model: Model) -> None:
    """Refuse a result that is not this job's; whether it is true the committee finds out."""
    if result.output_tokens > job.max_output_tokens:
        raise _bad_result(
            f"{result.output_tokens} tokens, the job allows 1 to {job.max_output_tokens}"
        )
    if result.input_tokens >= model.context_tokens:
        raise _bad_result(
            f"input_tokens is {result.input_tokens}, allowed are 1 to {model.context_tokens - 1}"
        )
    if result.engine_profile != job.engine_profile:
        raise _bad_result(
            f"engine_profile is {result.engine_profile[:PROFILE_BYTES_MAX]!r}, your offer's was "
            f"{job.engine_profile!r} when the job was assigned"
        )


def _check_price(
    max_price: int,
    input_tokens: int,
    output_tokens: int,
    seat_price: int,
    floors: tuple[tuple[int, int, int], ...],
) -> None:
    """Refuse a price below what every open offer needs. Raises Rejection."""
    if not floors:
        raise Rejection(
            RejectionReason.NO_OFFER,
            "there is no open offer for this model, or none by the provider asked for",
        )
    needed = min(
        [
            price_needed(*prices_and_seats, input_tokens, output_tokens, seat_price)
            for prices_and_seats in floors
        ]
    )
    if max_price >= needed:
        return
    raise Rejection(
        RejectionReason.PRICE_TOO_LOW,
        f"max_price is {max_price} grain; the cheapest offer needs {needed} for {output_tokens} "
        f"output tokens, up to {input_tokens} of input, and verification; what is not used comes "
        "back",
    )


def _answer_within_ms(scope: Scope, asked_ms: int) -> int:
    parameters = scope.parameters
    if asked_ms == 0:
        return parameters.answer_within_ms_default
    if not parameters.answer_within_ms_min <= asked_ms <= parameters.answer_within_ms_max:
        raise Rejection(
            RejectionReason.BAD_DEADLINE,
            f"answer_within_ms is {asked_ms}, allowed are {parameters.answer_within_ms_min} to "
            f"{parameters.answer_within_ms_max}, or 0 for {parameters.answer_within_ms_default}",
        )
    return asked_ms


def _bad_input(detail: str) -> Rejection:
    return Rejection(RejectionReason.BAD_INPUT, detail)


def _too_long(detail: str) -> Rejection:
    return Rejection(RejectionReason.PROMPT_TOO_LONG, detail)


def _above(name: str, value: int, limit: int) -> Rejection:
    return _bad_sampling(f"{name} is {value}, at most {limit}")


def _bad_sampling(detail: str) -> Rejection:
    return Rejection(RejectionReason.BAD_SAMPLING, detail)


def _bad_result(detail: str) -> Rejection:
    return Rejection(RejectionReason.BAD_RESULT, detail)
