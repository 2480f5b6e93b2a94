"""From protobuf messages to the engine's checked values, and from a refusal to a gRPC status.

Every field of a request has a bound here or in `runtime.engine`, and is checked before work is
queued. A refusal says what was seen, what is allowed and what to do; its reason is a word that
programs can switch on (google.rpc.ErrorInfo, domain `assay.runtime`). A verifier must be able to
judge any claim, so the claim of a Verify request is carried over as it is and never refused.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NoReturn

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from assay.v1 import inference_pb2, runtime_pb2
from runtime.engine import (
    MAX_CHAT_MESSAGES,
    MAX_FINGERPRINT_POSITIONS,
    MAX_INPUT_BYTES,
    MAX_LOGPROB_CEILING_MILLI,
    MAX_STOP_BYTES,
    MAX_STOP_STRINGS,
    MAX_TEMPERATURE_MILLI,
    MAX_TOP_K,
    MAX_TOP_P_MILLI,
    SEED_BYTES,
    ChatInput,
    Completion,
    FinishReason,
    InferenceInput,
    Message,
    RequestError,
    Role,
    SamplingRule,
    Scores,
    TextInput,
    TokenInput,
    Verification,
)
from runtime.scheduler import QueueFullError

ERROR_DOMAIN = "assay.runtime"
MODEL_ID_BYTES = 32
MAX_MESSAGE_BYTES = 4 << 20
"""Largest message in either direction: room for the largest input, and for the largest claim."""
STATUS_DETAILS_KEY = "grpc-status-details-bin"

_ROLES = {
    inference_pb2.ROLE_SYSTEM: Role.SYSTEM,
    inference_pb2.ROLE_USER: Role.USER,
    inference_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
}
_FINISH_REASONS = frozenset(int(reason) for reason in FinishReason)


class RefusalReason(StrEnum):
    """Why the service refused a request. What an engine refuses keeps the engine's own reason."""

    BAD_MODEL_ID = "BAD_MODEL_ID"
    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    EMPTY_INPUT = "EMPTY_INPUT"
    INPUT_TOO_LARGE = "INPUT_TOO_LARGE"
    TOO_MANY_MESSAGES = "TOO_MANY_MESSAGES"
    BAD_ROLE = "BAD_ROLE"
    OVER_CONTEXT = "OVER_CONTEXT"
    BAD_SEED = "BAD_SEED"
    MISSING_SAMPLING = "MISSING_SAMPLING"
    TEMPERATURE_TOO_HIGH = "TEMPERATURE_TOO_HIGH"
    TOP_K_TOO_LARGE = "TOP_K_TOO_LARGE"
    TOP_P_TOO_LARGE = "TOP_P_TOO_LARGE"
    MAX_OUTPUT_TOKENS_OUT_OF_RANGE = "MAX_OUTPUT_TOKENS_OUT_OF_RANGE"
    TOO_MANY_STOP_STRINGS = "TOO_MANY_STOP_STRINGS"
    STOP_STRING_LENGTH = "STOP_STRING_LENGTH"
    MIN_TOKENS_TOO_LARGE = "MIN_TOKENS_TOO_LARGE"
    LOGPROB_CEILING_TOO_LARGE = "LOGPROB_CEILING_TOO_LARGE"
    MISSING_CLAIM = "MISSING_CLAIM"
    TOO_MANY_POSITIONS = "TOO_MANY_POSITIONS"
    QUEUE_FULL = "QUEUE_FULL"
    DEADLINE_PASSED = "DEADLINE_PASSED"
    STOPPING = "STOPPING"
    ENGINE_FAILED = "ENGINE_FAILED"


class Refusal(Exception):
    """A request that is not served, ready to be told to its caller."""

    def __init__(
        self,
        reason: str,
        seen: str,
        allowed: str = "",
        remedy: str = "",
        code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__("; ".join(part for part in (seen, allowed, remedy) if part))
        self.reason = str(reason)
        self.metadata = {"seen": seen, "allowed": allowed, "remedy": remedy}
        self.code = code
        self.retry_after_s = retry_after_s


def refuse(reason: RefusalReason, seen: str, allowed: str, remedy: str) -> NoReturn:
    """Raise the refusal of an invalid argument."""
    raise Refusal(reason, seen, allowed, remedy)


def queue_full(error: QueueFullError) -> Refusal:
    """The refusal of a request that finds its queue full."""
    return Refusal(
        RefusalReason.QUEUE_FULL,
        f"{error.queued} {error.workload} requests wait already",
        f"at most {error.limit} may wait",
        f"try again in {error.retry_after_s:.2f} s or use another runtime",
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        error.retry_after_s,
    )


def engine_refusal(error: RequestError) -> Refusal:
    """What an engine refused, under the engine's own reason."""
    return Refusal(error.reason.name, error.detail)


def trailing_metadata(refusal: Refusal) -> tuple[tuple[str, bytes], ...]:
    """The google.rpc.Status of a refusal, as the trailer in which gRPC carries it."""
    status = status_pb2.Status(code=refusal.code.value[0], message=str(refusal))
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(
            reason=refusal.reason, domain=ERROR_DOMAIN, metadata=refusal.metadata
        )
    )
    if refusal.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(refusal.retry_after_s * 1000))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return ((STATUS_DETAILS_KEY, status.SerializeToString()),)


def read_model_id(model: bytes) -> bytes:
    """Check the shape of a model id."""
    if len(model) != MODEL_ID_BYTES:
        refuse(
            RefusalReason.BAD_MODEL_ID,
            f"a model id of {len(model)} bytes",
            f"it has {MODEL_ID_BYTES}",
            "send the digest of the package's manifest, as Models lists it",
        )
    return model


def read_seed(seed: bytes) -> bytes:
    """Check the shape of a public seed."""
    if len(seed) != SEED_BYTES:
        refuse(
            RefusalReason.BAD_SEED,
            f"a seed of {len(seed)} bytes",
            f"it has {SEED_BYTES}",
            "send the job's seed",
        )
    return seed


def _check_input_bytes(size_bytes: int) -> None:
    if size_bytes > MAX_INPUT_BYTES:
        refuse(
            RefusalReason.INPUT_TOO_LARGE,
            f"an input of {size_bytes} bytes",
            f"at most {MAX_INPUT_BYTES} bytes",
            "shorten the input",
        )


def _read_chat(chat: inference_pb2.Chat) -> ChatInput:
    if len(chat.messages) > MAX_CHAT_MESSAGES:
        refuse(
            RefusalReason.TOO_MANY_MESSAGES,
            f"a chat of {len(chat.messages)} messages",
            f"at most {MAX_CHAT_MESSAGES}",
            "leave out the oldest messages",
        )
    _check_input_bytes(sum(len(message.content.encode()) for message in chat.messages))
    messages = []
    for index, message in enumerate(chat.messages):
        role = _ROLES.get(message.role)
        if role is None:
            refuse(
                RefusalReason.BAD_ROLE,
                f"message {index} has role {message.role}",
                "roles are system (1), user (2) and assistant (3)",
                "set the role of every message",
            )
        messages.append(Message(role, message.content))
    return ChatInput(tuple(messages))


def read_input(message: inference_pb2.InferenceInput, context_tokens: int) -> InferenceInput:
    """Turn the wire form of an input into the engine's, which checks what needs a tokenizer."""
    match message.WhichOneof("kind"):
        case "text":
            _check_input_bytes(len(message.text.encode()))
            return TextInput(message.text)
        case "chat":
            return _read_chat(message.chat)
        case "token_ids":
            count = len(message.token_ids.ids)
            if count >= context_tokens:
                refuse(
                    RefusalReason.OVER_CONTEXT,
                    f"a prompt of {count} tokens",
                    f"at most {context_tokens - 1}, which leaves room for one output token",
                    "shorten the prompt",
                )
            return TokenInput(tuple(message.token_ids.ids))
    refuse(
        RefusalReason.EMPTY_INPUT,
        "an input that is neither text, chat nor token ids",
        "exactly one of the three",
        "set one of them",
    )


def _check_at_most(reason: RefusalReason, name: str, value: int, limit: int) -> None:
    if value > limit:
        refuse(reason, f"{name} is {value}", f"at most {limit}", f"lower {name}")


def read_sampling(message: inference_pb2.Sampling, context_tokens: int) -> SamplingRule:
    """Turn the wire form of a sampling rule into the engine's, each bound with its own reason."""
    _check_at_most(
        RefusalReason.TEMPERATURE_TOO_HIGH,
        "temperature_milli",
        message.temperature_milli,
        MAX_TEMPERATURE_MILLI,
    )
    _check_at_most(RefusalReason.TOP_K_TOO_LARGE, "top_k", message.top_k, MAX_TOP_K)
    _check_at_most(
        RefusalReason.TOP_P_TOO_LARGE, "top_p_milli", message.top_p_milli, MAX_TOP_P_MILLI
    )
    if not 1 <= message.max_output_tokens <= context_tokens:
        refuse(
            RefusalReason.MAX_OUTPUT_TOKENS_OUT_OF_RANGE,
            f"max_output_tokens is {message.max_output_tokens}",
            f"1 to the model's context of {context_tokens}",
            "choose a number in this range",
        )
    if message.min_tokens > message.max_output_tokens:
        refuse(
            RefusalReason.MIN_TOKENS_TOO_LARGE,
            f"min_tokens is {message.min_tokens}",
            f"at most max_output_tokens, which is {message.max_output_tokens}",
            "lower min_tokens or raise max_output_tokens",
        )
    _check_at_most(
        RefusalReason.LOGPROB_CEILING_TOO_LARGE,
        "logprob_ceiling_milli",
        message.logprob_ceiling_milli,
        MAX_LOGPROB_CEILING_MILLI,
    )
    _check_at_most(
        RefusalReason.TOO_MANY_STOP_STRINGS,
        "the number of stop strings",
        len(message.stop),
        MAX_STOP_STRINGS,
    )
    for text in message.stop:
        size_bytes = len(text.encode())
        if not 1 <= size_bytes <= MAX_STOP_BYTES:
            refuse(
                RefusalReason.STOP_STRING_LENGTH,
                f"a stop string of {size_bytes} bytes",
                f"1 to {MAX_STOP_BYTES} bytes",
                "leave out empty ones and shorten long ones",
            )
    return SamplingRule(
        temperature_milli=message.temperature_milli,
        top_k=message.top_k,
        top_p_milli=message.top_p_milli,
        max_output_tokens=message.max_output_tokens,
        stop=tuple(message.stop),
        logprob_ceiling_milli=message.logprob_ceiling_milli,
        min_tokens=message.min_tokens,
    )


def read_claim(message: inference_pb2.InferenceResult) -> Completion:
    """Carry a claim over, whatever it holds; a finish reason nobody defined counts as none."""
    known = message.finish_reason in _FINISH_REASONS
    return Completion(
        token_ids=tuple(message.token_ids),
        logprobs=tuple(message.logprobs),
        finish_reason=FinishReason(message.finish_reason) if known else FinishReason.UNSPECIFIED,
        input_tokens=message.input_tokens,
        text=message.text,
        engine_profile=message.engine_profile,
    )


def read_positions(positions: Sequence[int]) -> tuple[int, ...]:
    """Check the number of fingerprint positions; the engine checks where they lie."""
    if len(positions) > MAX_FINGERPRINT_POSITIONS:
        refuse(
            RefusalReason.TOO_MANY_POSITIONS,
            f"{len(positions)} fingerprint positions",
            f"at most {MAX_FINGERPRINT_POSITIONS}",
            "ask for fewer",
        )
    return tuple(positions)


def write_result(completion: Completion) -> inference_pb2.InferenceResult:
    """The wire form of a completion."""
    return inference_pb2.InferenceResult(
        token_ids=completion.token_ids,
        logprobs=completion.logprobs,
        finish_reason=inference_pb2.FinishReason.ValueType(completion.finish_reason),
        input_tokens=completion.input_tokens,
        text=completion.text,
        engine_profile=completion.engine_profile,
    )


def _write_scores(scores: Scores) -> inference_pb2.Scores:
    return inference_pb2.Scores(
        positions=scores.positions,
        replay_mismatches=scores.replay_mismatches,
        margin_max=scores.margin_max,
        margin_sum=scores.margin_sum,
        distance_max=scores.distance_max,
        distance_sum=scores.distance_sum,
        outside_candidates=scores.outside_candidates,
        doubt_sum=scores.doubt_sum,
        input_tokens=scores.input_tokens,
        finish_plausible=scores.finish_plausible,
        text_matches=scores.text_matches,
        opening_margin_sum=scores.opening_margin_sum,
        opening_distance_sum=scores.opening_distance_sum,
        opening_doubt_sum=scores.opening_doubt_sum,
    )


def write_verification(verification: Verification) -> runtime_pb2.VerifyReply:
    """The wire form of a verification."""
    return runtime_pb2.VerifyReply(
        scores=_write_scores(verification.scores),
        fingerprint=verification.fingerprint,
        engine_profile=verification.engine_profile,
    )
