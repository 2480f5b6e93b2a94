"""The engine protocol: the values that go in and out of an engine, and the handful of methods it
has.

An engine is driven by ONE scheduler thread. `generate` and `verify` are generators: each `next`
does one bounded piece of work, so the scheduler interleaves jobs round-robin and cancels one with
`.close()`. The final value is the generator's return value (`StopIteration.value`, or `yield
from`). Every integer here that consensus may see has its unit in its name or docstring; none is a
float.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum, StrEnum
from typing import Protocol, runtime_checkable

from runtime.packages import ModelPackage

MAX_OUTPUT_TOKENS = 65_536
"""Largest max_output_tokens of a request; the model's context bounds it further."""
MAX_TEMPERATURE_MILLI = 5_000
MAX_TOP_K = 64
"""Also the number of candidates the protocol samples from."""
MAX_TOP_P_MILLI = 1_000
MAX_LOGPROB_CEILING_MILLI = 20_000
"""Lower than a ceiling of 20 nats below 0, hardly a candidate is left that it does not level."""
MAX_STOP_STRINGS = 4
MAX_STOP_BYTES = 64
MAX_INPUT_BYTES = 1 << 20
"""Largest text, or sum of chat contents, that is tokenized at all."""
MAX_CHAT_MESSAGES = 256
MAX_FINGERPRINT_POSITIONS = 256
SEED_BYTES = 32


class RequestReason(StrEnum):
    """Why a request was refused."""

    EMPTY_INPUT = "empty_input"
    INPUT_TOO_LARGE = "input_too_large"
    OVER_CONTEXT = "over_context"
    BAD_TOKEN_ID = "bad_token_id"
    BAD_CHAT = "bad_chat"
    BAD_SAMPLING = "bad_sampling"
    BAD_SEED = "bad_seed"
    BAD_FINGERPRINT_POSITION = "bad_fingerprint_position"


class RequestError(ValueError):
    """The caller asked for something this model or the protocol does not allow."""

    def __init__(self, reason: RequestReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class FinishReason(IntEnum):
    """Equal to assay.v1.FinishReason."""

    UNSPECIFIED = 0
    STOP = 1
    LENGTH = 2
    STOP_STRING = 3


class Role(StrEnum):
    """Who speaks in a chat; the value is what templates see."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class TextInput:
    """Raw continuation; special tokens typed in it are ordinary text."""

    text: str


@dataclass(frozen=True, slots=True)
class ChatInput:
    """Rendered with the package's template; contents cannot forge roles."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class TokenInput:
    """Exactly these ids, special ones included."""

    ids: tuple[int, ...]


InferenceInput = TextInput | ChatInput | TokenInput


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise RequestError(
            RequestReason.BAD_SAMPLING, f"{name} is {value}, allowed is {low} to {high}"
        )


@dataclass(frozen=True, slots=True)
class SamplingRule:
    """A validated sampling rule; see `runtime.sampling` for its exact meaning.

    Building one raises RequestError (BAD_SAMPLING) for anything out of bounds.
    """

    temperature_milli: int
    """0 is greedy, 800 is temperature 0.8."""
    top_k: int
    """0 means all of the protocol's 64 candidates."""
    top_p_milli: int
    """0 means 1000, which is off."""
    max_output_tokens: int
    stop: tuple[str, ...] = ()
    logprob_ceiling_milli: int = 0
    """No token counts for more than e^(-ceiling / 1000) of probability; 0 is no ceiling."""
    min_tokens: int = 0
    """While there are fewer, no end token can be drawn and no stop string is looked for."""

    def __post_init__(self) -> None:
        _check_range("temperature_milli", self.temperature_milli, 0, MAX_TEMPERATURE_MILLI)
        _check_range("top_k", self.top_k, 0, MAX_TOP_K)
        _check_range("top_p_milli", self.top_p_milli, 0, MAX_TOP_P_MILLI)
        _check_range("max_output_tokens", self.max_output_tokens, 1, MAX_OUTPUT_TOKENS)
        _check_range(
            "logprob_ceiling_milli", self.logprob_ceiling_milli, 0, MAX_LOGPROB_CEILING_MILLI
        )
        _check_range("min_tokens", self.min_tokens, 0, self.max_output_tokens)
        _check_range("number of stop strings", len(self.stop), 0, MAX_STOP_STRINGS)
        for text in self.stop:
            try:
                size_bytes = len(text.encode())
            except UnicodeEncodeError as error:
                raise RequestError(
                    RequestReason.BAD_SAMPLING, f"stop string {text!r} is not valid Unicode text"
                ) from error
            _check_range("bytes of a stop string", size_bytes, 1, MAX_STOP_BYTES)

    def __repr__(self) -> str:
        """The call that builds it; fields younger than the first five only where they are used,
        so that digests taken of rules (of a calibration's corpus) stay what they were."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("logprob_ceiling_milli", "min_tokens"):
            if values[name] == 0:
                del values[name]
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
        return f"SamplingRule({shown})"


@dataclass(frozen=True, slots=True)
class Step:
    """One output token."""

    token_id: int
    logprob: int
    """Raw log-probability (temperature 1, whole vocabulary) in 2^-20 nats, at most 0."""
    text: str
    """Text that became certain with this token: never half a character, never part of a stop
    string."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole result: what `generate` returns, and what a provider claims. A claim may hold
    anything."""

    token_ids: tuple[int, ...]
    logprobs: tuple[int, ...]
    """In 2^-20 nats, one for each token id."""
    finish_reason: FinishReason
    input_tokens: int
    text: str
    """A pure function of token ids and stop strings."""
    engine_profile: str


@dataclass(frozen=True, slots=True)
class Scores:
    """Field by field assay.v1.Scores; see `runtime.scoring`."""

    positions: int
    replay_mismatches: int
    margin_max: int
    margin_sum: int
    distance_max: int
    distance_sum: int
    outside_candidates: int
    doubt_sum: int
    input_tokens: int
    finish_plausible: bool
    text_matches: bool
    opening_margin_sum: int
    opening_distance_sum: int
    opening_doubt_sum: int


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` returns."""

    scores: Scores
    fingerprint: tuple[int, ...]
    """Own log-probability (2^-20 nats) of the runner-up token at each asked position."""
    engine_profile: str


class Engine(Protocol):
    """One model package, ready to run."""

    @property
    def package(self) -> ModelPackage:
        """The package this engine runs."""
        ...

    @property
    def profile(self) -> str:
        """The name of its arithmetic."""
        ...

    @property
    def context_tokens(self) -> int:
        """Most tokens of input and output together."""
        ...

    @property
    def vocabulary(self) -> int:
        """Token ids run from 0 to one less."""
        ...

    def tokenize(self, request: InferenceInput) -> list[int]:
        """Prompt ids. Raises RequestError; the result is never empty and leaves room for one
        token."""
        ...

    def generate(
        self, prompt_ids: Sequence[int], sampling: SamplingRule, seed: bytes
    ) -> Generator[Step | None, None, Completion]:
        """Yields a Step for each output token, None for progress without a token (a prefill block).

        Checks its arguments at the first `next`, raising RequestError. Concatenated Step texts and
        a rest that became certain only at the end make `Completion.text`, so emit
        `completion.text[len(already_sent):]` with the finish.
        """
        ...

    def verify(
        self,
        prompt_ids: Sequence[int],
        sampling: SamplingRule,
        seed: bytes,
        claim: Completion,
        fingerprint_positions: Sequence[int],
    ) -> Generator[None, None, Verification]:
        """Scores a claim, whatever it holds, yielding None after each block of prefill.

        `fingerprint_positions` are output positions below the claim's token count, at most 256;
        others raise RequestError, as do a bad prompt and a bad seed. The claim itself never raises.
        """
        ...


class SharedPass(ABC):
    """Work of the engine that a job needs done before it can go on, and that costs less when it is
    done together with the same of other jobs.

    A job's generator yields one and is resumed once it has been run.
    """

    @abstractmethod
    def run_with(self, others: Sequence["SharedPass"]) -> Sequence["SharedPass"]:
        """Run this pass and those of the others that fit; returns what was run, this one among it.

        Results are those each would have alone.
        """


@runtime_checkable
class SharingEngine(Engine, Protocol):
    """An engine that can do steps of several generations at once."""

    def generate_together(
        self, prompt_ids: Sequence[int], sampling: SamplingRule, seed: bytes
    ) -> Generator[Step | SharedPass | None, None, Completion]:
        """`Engine.generate` that yields each pass of the model instead of running it."""
        ...
