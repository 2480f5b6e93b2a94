"""What a node believes of a runtime's replies: only what could be true.

A runtime is another process, maybe another's, maybe broken into. Each reply is checked against the
request and the model's own bounds before anything else sees it; a reply that cannot be true raises
RuntimeReplyError with its reason. Whether the tokens are the right ones is for verifiers to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn

from assay.v1 import inference_pb2, runtime_pb2
from consensus.verdicts import UNIT_BITS

MODEL_ID_BYTES = 32
MODELS_MAX = 64
NAME_BYTES_MAX = 256
PROFILE_BYTES_MAX = 128
VOCABULARY_MAX = 1 << 22
CONTEXT_TOKENS_MAX = 1 << 24
TEXT_BYTES_PER_TOKEN_MAX = 1024
"""No token of a known tokenizer decodes to more; the longest are runs of blanks."""
SCORE_CLIP = 1 << 24
"""Margins and distances are clipped here before they are summed (2^-20 nats)."""

_FINISH_REASONS = frozenset(
    {
        inference_pb2.FINISH_REASON_STOP,
        inference_pb2.FINISH_REASON_LENGTH,
        inference_pb2.FINISH_REASON_STOP_STRING,
    }
)


class ReplyFault(StrEnum):
    """Why a reply cannot be true."""

    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    OUT_OF_ORDER = "out_of_order"
    ENDED_EARLY = "ended_early"
    EMPTY_CHUNK = "empty_chunk"
    LENGTHS_DIFFER = "lengths_differ"
    TOKEN_OUTSIDE_VOCABULARY = "token_outside_vocabulary"
    POSITIVE_LOGPROB = "positive_logprob"
    TOO_MANY_TOKENS = "too_many_tokens"
    TOO_MUCH_TEXT = "too_much_text"
    BAD_INPUT_TOKENS = "bad_input_tokens"
    BAD_PROFILE = "bad_profile"
    BAD_FINISH = "bad_finish"
    FINISHED_DIFFERS = "finished_differs"
    BAD_SCORES = "bad_scores"
    BAD_FINGERPRINT = "bad_fingerprint"
    BAD_MODEL = "bad_model"


class RuntimeReplyError(Exception):
    """The runtime said something that cannot be true; its reply is not used."""

    def __init__(self, reason: ReplyFault, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


def _fault(reason: ReplyFault, detail: str) -> NoReturn:
    raise RuntimeReplyError(reason, detail)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model a runtime serves, and how busy the runtime is."""

    model: bytes
    name: str
    architecture: str
    engine_profile: str
    context_tokens: int
    vocabulary: int
    parameters: int
    queued: int
    running: int
    queue_limit: int


@dataclass(frozen=True, slots=True)
class Started:
    """The prompt was accepted."""

    input_tokens: int
    engine_profile: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens in order, their log-probabilities in 2^-20 nats, and the text that became certain."""

    token_ids: tuple[int, ...]
    logprobs: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The whole result; its tokens, log-probabilities and text are those of the chunks together."""

    result: inference_pb2.InferenceResult


GenerationEvent = Started | Chunk | Finished


@dataclass(frozen=True, slots=True)
class Verification:
    """A runtime's scores of a claim and its own log-probabilities of the runner-up tokens."""

    scores: inference_pb2.Scores
    fingerprint: tuple[int, ...]
    engine_profile: str


def _check_profile(profile: str) -> str:
    if not 1 <= len(profile.encode()) <= PROFILE_BYTES_MAX:
        _fault(
            ReplyFault.BAD_PROFILE,
            f"an engine profile of {len(profile.encode())} bytes, allowed are 1 to"
            f" {PROFILE_BYTES_MAX}",
        )
    return profile


def check_token_ids(token_ids: Sequence[int], vocabulary: int) -> tuple[int, ...]:
    """Return the ids; each must lie in the vocabulary."""
    ids = tuple(token_ids)
    if ids and max(ids) >= vocabulary:
        _fault(
            ReplyFault.TOKEN_OUTSIDE_VOCABULARY,
            f"token id {max(ids)}, the vocabulary has {vocabulary}",
        )
    return ids


def _check_logprobs(logprobs: Sequence[int]) -> tuple[int, ...]:
    values = tuple(logprobs)
    if values and max(values) > 0:
        _fault(ReplyFault.POSITIVE_LOGPROB, f"a log-probability of {max(values)}, at most 0")
    return values


@dataclass(slots=True)
class GenerationChecker:
    """Follows one Generate stream; `accept` returns the event of each reply or raises."""

    model: ModelInfo
    max_output_tokens: int
    min_tokens: int = 0
    started: Started | None = None
    finished: bool = False
    _token_ids: list[int] = field(default_factory=list)
    _logprobs: list[int] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _text_bytes: int = 0
    _rest_came: bool = False

    def accept(self, reply: runtime_pb2.GenerateReply) -> GenerationEvent:
        """Check the next reply of the stream."""
        running = self.started is not None and not self.finished
        match reply.WhichOneof("kind"):
            case "started" if self.started is None:
                return self._accept_started(reply.started)
            case "chunk" if running:
                return self._accept_chunk(reply.chunk)
            case "finished" if running and self._token_ids:
                return self._accept_finished(reply.finished)
            case kind:
                _fault(ReplyFault.OUT_OF_ORDER, f"{kind or 'an empty reply'} came out of order")

    def end(self) -> None:
        """The stream ended: it must have finished."""
        if not self.finished:
            _fault(
                ReplyFault.ENDED_EARLY,
                f"the stream ended after {len(self._token_ids)} tokens without a result",
            )

    def _room(self) -> int:
        input_tokens = 0 if self.started is None else self.started.input_tokens
        return min(self.max_output_tokens, self.model.context_tokens - input_tokens)

    def _accept_started(self, started: runtime_pb2.GenerateReply.Started) -> Started:
        if not 1 <= started.input_tokens < self.model.context_tokens:
            _fault(
                ReplyFault.BAD_INPUT_TOKENS,
                f"{started.input_tokens} input tokens, the context has {self.model.context_tokens}",
            )
        self.started = Started(started.input_tokens, _check_profile(started.engine_profile))
        return self.started

    def _accept_chunk(self, chunk: runtime_pb2.GenerateReply.Chunk) -> Chunk:
        count = len(chunk.token_ids)
        if count != len(chunk.logprobs):
            _fault(
                ReplyFault.LENGTHS_DIFFER,
                f"{count} tokens with {len(chunk.logprobs)} log-probabilities",
            )
        if len(self._token_ids) + count > self._room():
            _fault(
                ReplyFault.TOO_MANY_TOKENS,
                f"{len(self._token_ids) + count} tokens, at most {self._room()}",
            )
        # Text without tokens is the rest that became certain with the end, so it comes once;
        # otherwise a stream of empty chunks would never end.
        if self._rest_came or (count == 0 and not chunk.text):
            _fault(ReplyFault.EMPTY_CHUNK, "a chunk without tokens, or after the last text")
        self._rest_came = count == 0
        event = Chunk(
            check_token_ids(chunk.token_ids, self.model.vocabulary),
            _check_logprobs(chunk.logprobs),
            chunk.text,
        )
        self._token_ids += event.token_ids
        self._logprobs += event.logprobs
        self._texts.append(chunk.text)
        self._text_bytes += len(chunk.text.encode())
        if self._text_bytes > TEXT_BYTES_PER_TOKEN_MAX * len(self._token_ids):
            _fault(
                ReplyFault.TOO_MUCH_TEXT,
                f"{self._text_bytes} bytes of text from {len(self._token_ids)} tokens",
            )
        return event

    def _accept_finished(self, result: inference_pb2.InferenceResult) -> Finished:
        if result.finish_reason not in _FINISH_REASONS:
            _fault(ReplyFault.BAD_FINISH, f"finish reason {result.finish_reason}")
        # An end token comes after min_tokens others, a stop string ends no sooner than with them.
        least = {
            inference_pb2.FINISH_REASON_STOP: self.min_tokens + 1,
            inference_pb2.FINISH_REASON_STOP_STRING: self.min_tokens,
        }.get(result.finish_reason, 0)
        if len(self._token_ids) < least:
            _fault(
                ReplyFault.BAD_FINISH,
                f"finish reason {result.finish_reason} after {len(self._token_ids)} tokens, where "
                f"min_tokens is {self.min_tokens}",
            )
        started = self.started
        told = started and (started.input_tokens, started.engine_profile)
        same = {
            "tokens": list(result.token_ids) == self._token_ids,
            "log-probabilities": list(result.logprobs) == self._logprobs,
            "text": result.text == "".join(self._texts),
            "start": (result.input_tokens, result.engine_profile) == told,
        }
        for name, equal in same.items():
            if not equal:
                _fault(ReplyFault.FINISHED_DIFFERS, f"the result's {name} is not what was streamed")
        self.finished = True
        return Finished(result)


def _check_scores(
    scores: inference_pb2.Scores, claimed_tokens: int, max_output_tokens: int, context_tokens: int
) -> None:
    count = scores.positions
    # Of a claim that is too long only the tokens that could be asked for are scored.
    room = min(max_output_tokens, context_tokens - scores.input_tokens)
    bounds = {
        "positions": count == min(claimed_tokens, room),
        "replay_mismatches": scores.replay_mismatches <= count,
        "outside_candidates": scores.outside_candidates <= count,
        "margin": scores.margin_max <= min(SCORE_CLIP, scores.margin_sum)
        and scores.margin_sum <= count * scores.margin_max,
        "distance": scores.distance_max <= min(SCORE_CLIP, scores.distance_sum)
        and scores.distance_sum <= count * scores.distance_max,
        "doubt_sum": scores.doubt_sum <= count << UNIT_BITS,
        "opening": scores.opening_margin_sum <= scores.margin_sum
        and scores.opening_distance_sum <= scores.distance_sum
        and scores.opening_doubt_sum <= scores.doubt_sum,
        "input_tokens": 1 <= scores.input_tokens < context_tokens,
    }
    for name, holds in bounds.items():
        if not holds:
            _fault(
                ReplyFault.BAD_SCORES, f"{name} cannot be so with {claimed_tokens} output tokens"
            )


def check_verification(
    reply: runtime_pb2.VerifyReply,
    model: ModelInfo,
    max_output_tokens: int,
    claim: inference_pb2.InferenceResult,
    fingerprint_positions: Sequence[int],
) -> Verification:
    """Check the shape of a verification against the claim and the positions asked for."""
    if not reply.HasField("scores"):
        _fault(ReplyFault.BAD_SCORES, "a verification without scores")
    _check_scores(reply.scores, len(claim.token_ids), max_output_tokens, model.context_tokens)
    if len(reply.fingerprint) != len(fingerprint_positions):
        _fault(
            ReplyFault.BAD_FINGERPRINT,
            f"{len(reply.fingerprint)} values for {len(fingerprint_positions)} positions",
        )
    return Verification(
        reply.scores, _check_logprobs(reply.fingerprint), _check_profile(reply.engine_profile)
    )


def check_prompt_ids(reply: runtime_pb2.TokenizeReply, model: ModelInfo) -> tuple[int, ...]:
    """Check the ids of a tokenized input."""
    if not 1 <= len(reply.token_ids) < model.context_tokens:
        _fault(
            ReplyFault.BAD_INPUT_TOKENS,
            f"{len(reply.token_ids)} input tokens, the context has {model.context_tokens}",
        )
    return check_token_ids(reply.token_ids, model.vocabulary)


def check_models(reply: runtime_pb2.ModelsReply) -> tuple[ModelInfo, ...]:
    """Check the list of models a runtime says it serves."""
    if len(reply.models) > MODELS_MAX:
        _fault(ReplyFault.BAD_MODEL, f"{len(reply.models)} models, at most {MODELS_MAX}")
    models = tuple(_check_model(model) for model in reply.models)
    if len({model.model for model in models}) != len(models):
        _fault(ReplyFault.BAD_MODEL, "a model is listed twice")
    return models


def _check_model(model: runtime_pb2.ModelInfo) -> ModelInfo:
    bounds = {
        "id": len(model.model) == MODEL_ID_BYTES,
        "name": len(model.name.encode()) <= NAME_BYTES_MAX,
        "architecture": len(model.architecture.encode()) <= NAME_BYTES_MAX,
        "context": 2 <= model.context_tokens <= CONTEXT_TOKENS_MAX,
        "vocabulary": 1 <= model.vocabulary <= VOCABULARY_MAX,
    }
    for name, holds in bounds.items():
        if not holds:
            _fault(ReplyFault.BAD_MODEL, f"the {name} of model {model.model.hex()[:64]}")
    return ModelInfo(
        model=model.model,
        name=model.name,
        architecture=model.architecture,
        engine_profile=_check_profile(model.engine_profile),
        context_tokens=model.context_tokens,
        vocabulary=model.vocabulary,
        parameters=model.parameters,
        queued=model.queued,
        running=model.running,
        queue_limit=model.queue_limit,
    )
