"""The two operations of a job: asking for an inference, and answering it."""

from collections.abc import Iterable

from assay.v1 import inference_pb2 as inference
from assay.v1 import transactions_pb2 as pb
from chain.execution.market import check_provider_key, live_offers, price_floor
from chain.execution.scope import Scope
from chain.records import PROFILE_BYTES_MAX, Job, JobStatus, Model, Tier
from chain.rejections import Rejection, RejectionReason
from chain.transactions import result_bytes
from ext.hashing import tagged_hash

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
RESULT_TEXT_BYTES_MAX = 1 << 16

_ROLES = (inference.ROLE_SYSTEM, inference.ROLE_USER, inference.ROLE_ASSISTANT)
_FINISH_REASONS = (
    inference.FINISH_REASON_STOP,
    inference.FINISH_REASON_LENGTH,
    inference.FINISH_REASON_STOP_STRING,
)
_TIERS = {
    pb.TIER_UNSPECIFIED: Tier.STANDARD,
    pb.TIER_STANDARD: Tier.STANDARD,
    pb.TIER_CRITICAL: Tier.CRITICAL,
}


def request_digest(request: bytes) -> bytes:
    """Digest of a RequestInference, as signed."""
    return tagged_hash(b"request", request)


def result_digest(result: bytes) -> bytes:
    """Digest of an InferenceResult, as signed."""
    return tagged_hash(b"result", result)


def request_inference(
    scope: Scope, sender: bytes, message: pb.RequestInference, signed: bytes, new_job: bytes
) -> None:
    """Open a job and move its highest price into escrow."""
    # Each field is read once: every look into a message makes an object.
    identity, sampling, max_price, seed = (
        message.model,
        message.sampling,
        message.max_price,
        message.seed,
    )
    output_tokens = sampling.max_output_tokens
    model = scope.model(identity)
    check_input(message.input, model.context_tokens)
    check_sampling(sampling)
    check_output_limit(scope, output_tokens, model)
    tier = _TIERS.get(message.tier)
    if tier is None:
        raise Rejection(RejectionReason.MALFORMED, f"tier {message.tier} is unknown")
    if len(seed) not in (0, SEED_BYTES):
        raise Rejection(
            RejectionReason.BAD_SAMPLING,
            f"the seed has {len(seed)} bytes, must be {SEED_BYTES} or 0",
        )
    pinned = check_provider_key(message.provider)
    _check_price(
        max_price,
        (
            price_floor(scope, offer, identity, tier, output_tokens)
            for _, offer in live_offers(scope, identity, pinned)
        ),
    )
    within_ms = _answer_within_ms(scope, message.answer_within_ms)
    scope.debit(sender, max_price)
    job = Job(
        requester=sender,
        model=identity,
        request_digest=request_digest(signed),
        tier=tier,
        max_price=max_price,
        escrow=max_price,
        max_output_tokens=output_tokens,
        pinned_provider=pinned,
        requested_height=scope.height,
        requested_ms=scope.timestamp_ms,
        answer_within_ms=within_ms,
        status=JobStatus.REQUESTED,
        attempts=0,
        provider=None,
        operator=0,
        engine_profile="",
        input_price=0,
        output_price=0,
        seed=seed or None,
        deadline_ms=scope.timestamp_ms + scope.parameters.assign_within_ms,
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
    )
    scope.payloads.append((job.request_digest, signed))
    scope.put_job(new_job, job, before=None)


def submit_result(scope: Scope, sender: bytes, message: pb.SubmitResult, signed: bytes) -> None:
    """Record the assigned provider's answer; the audit starts two blocks later."""
    identity, answer = message.job, message.result
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
    model = scope.model(job.model)
    output_tokens = check_result(answer, job, model)
    result = result_bytes(signed)
    digest = result_digest(result)
    offer = scope.offer(job.model, sender)
    scope.put_offer(job.model, sender, offer._replace(open_jobs=offer.open_jobs - 1))
    answered = job._replace(
        status=JobStatus.ANSWERED,
        result_digest=digest,
        answered_height=scope.height,
        draw_height=scope.height + scope.parameters.audit_delay_blocks,
        deadline_ms=scope.timestamp_ms + scope.parameters.audit_within_ms,
        input_tokens=answer.input_tokens,
        output_tokens=output_tokens,
    )
    scope.payloads.append((digest, result))
    scope.put_job(identity, answered, before=job.status)


def check_input(prompt: inference.InferenceInput, context_tokens: int) -> None:
    """Refuse an input that is empty, ill-formed, or cannot fit the context. Raises Rejection."""
    kind = prompt.WhichOneof("kind")
    if kind is None:
        raise _bad_input("give text, chat or token_ids")
    if kind == "token_ids":
        count = len(prompt.token_ids.ids)
        if count == 0:
            raise _bad_input("token_ids is empty")
        if count >= context_tokens:
            raise _too_long(f"{count} tokens, the context of {context_tokens} must leave one free")
        return
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


def check_result(result: inference.InferenceResult, job: Job, model: Model) -> int:
    """Refuse a result that is not even well-formed; whether it is true the committee finds out.

    Returns the number of its tokens.
    """
    count, logprobs = len(result.token_ids), result.logprobs
    if not 1 <= count <= job.max_output_tokens:
        raise _bad_result(f"{count} tokens, the job allows 1 to {job.max_output_tokens}")
    if len(logprobs) != count:
        raise _bad_result(f"{len(logprobs)} log-probabilities for {count} tokens")
    if max(logprobs) > 0:
        raise _bad_result("a log-probability is above 0")
    if result.finish_reason not in _FINISH_REASONS:
        raise _bad_result(f"finish_reason {result.finish_reason} is unknown")
    if not 1 <= result.input_tokens < model.context_tokens:
        raise _bad_result(
            f"input_tokens is {result.input_tokens}, allowed are 1 to {model.context_tokens - 1}"
        )
    if len(result.text.encode()) > RESULT_TEXT_BYTES_MAX:
        raise _bad_result(f"the text has more than {RESULT_TEXT_BYTES_MAX} bytes")
    if result.engine_profile != job.engine_profile:
        raise _bad_result(
            f"engine_profile is {result.engine_profile[:PROFILE_BYTES_MAX]!r}, your offer's was "
            f"{job.engine_profile!r} when the job was assigned"
        )
    return count


def _check_price(max_price: int, floors: Iterable[int]) -> None:
    """Refuse a price below what every open offer needs. Raises Rejection."""
    needed: int | None = None
    for floor in floors:
        if max_price >= floor:
            return
        needed = floor if needed is None else min(needed, floor)
    if needed is None:
        raise Rejection(
            RejectionReason.NO_OFFER,
            "there is no open offer for this model, or none by the provider asked for",
        )
    raise Rejection(
        RejectionReason.PRICE_TOO_LOW,
        f"max_price is {max_price} grain; the cheapest offer needs {needed} for the output tokens "
        "and verification, before input",
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
