"""Ways to cheat. Each changes one thing: the weights, what is asked of them, or what came out.

Every fraud is told as favourably to the cheat as it can be: it claims the input tokens of the true
request, an engine profile that may answer, and a text that fits its tokens. What is left to find it
by is the evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from ext.hashing import tagged_hash
from runtime.calibration.alterations import (
    Alteration,
    DroppedLayer,
    Noisy,
    OtherModel,
    Rounded,
    SmallerModel,
)
from runtime.calibration.corpus import CalibrationJob
from runtime.engine import (
    ChatInput,
    Completion,
    InferenceInput,
    Message,
    Role,
    SamplingRule,
    TextInput,
)

HONEST = "honest"
GROUND_SEEDS = 4
CHEAPER_TEMPERATURE = (79, 80)
"""Asked for 0.8, sampled at 0.79."""
SWAP_WITHIN = 31
"""A swap lies among the first output tokens, so that short outputs have it too."""
_WORDS = ("never", "seven", "blue", "northern", "quickly")


class Family(StrEnum):
    """What a fraud changes."""

    WEIGHTS = "weights"
    REQUEST = "request"
    RESULT = "result"
    ADAPTIVE = "adaptive"


@dataclass(frozen=True, slots=True)
class Asked:
    """What an engine is asked instead of the job."""

    input: InferenceInput
    sampling: SamplingRule
    seed: bytes


def asked_of(job: CalibrationJob) -> Asked:
    """What an honest provider asks its engine."""
    return Asked(job.input, job.sampling, job.seed)


class Fraud(Protocol):
    """A way to cheat that one engine can commit by answering something."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def family(self) -> Family:
        """What it changes."""
        ...

    @property
    def weights(self) -> Alteration | None:
        """What weights it generates with; None for the true ones."""
        ...

    def asks(self, job: CalibrationJob) -> list[Asked]:
        """What is generated; nothing where the fraud makes no sense for the job."""
        ...

    def claims(self, job: CalibrationJob, completions: Sequence[Completion]) -> Completion:
        """What is put on chain, given an answer to each of `asks`."""
        ...


@dataclass(frozen=True, slots=True)
class Honest:
    """No fraud."""

    name: str = HONEST
    family: Family = Family.RESULT
    weights: Alteration | None = None

    def asks(self, job: CalibrationJob) -> list[Asked]:
        """The job."""
        return [asked_of(job)]

    def claims(self, job: CalibrationJob, completions: Sequence[Completion]) -> Completion:
        """What came out."""
        return completions[0]


@dataclass(frozen=True, slots=True)
class OtherWeights:
    """Generates with altered weights."""

    weights: Alteration | None
    family: Family = Family.WEIGHTS

    @property
    def name(self) -> str:
        """That of the alteration."""
        return HONEST if self.weights is None else self.weights.name

    def asks(self, job: CalibrationJob) -> list[Asked]:
        """The job."""
        return [asked_of(job)]

    def claims(self, job: CalibrationJob, completions: Sequence[Completion]) -> Completion:
        """What came out."""
        return completions[0]


@dataclass(frozen=True, slots=True)
class OtherRequest:
    """Generates from another input, by `change`: one of the names below."""

    name: str
    family: Family = Family.REQUEST
    weights: Alteration | None = None

    def __post_init__(self) -> None:
        if self.name not in _CHANGES:
            raise ValueError(f"change {self.name!r}; known are {', '.join(_CHANGES)}")

    def asks(self, job: CalibrationJob) -> list[Asked]:
        """The job with another input, if it has what is to be changed."""
        changed = _CHANGES[self.name](job)
        return [] if changed is None else [Asked(changed, job.sampling, job.seed)]

    def claims(self, job: CalibrationJob, completions: Sequence[Completion]) -> Completion:
        """What came out."""
        return completions[0]


def without_system_message(job: CalibrationJob) -> InferenceInput | None:
    """The chat without its system message; None if it has none."""
    if not isinstance(job.input, ChatInput) or not job.has_system:
        return None
    return ChatInput(job.input.messages[1:])


def with_other_system_message(job: CalibrationJob) -> InferenceInput | None:
    """The chat with its system message replaced; None if it has none."""
    rest = without_system_message(job)
    if not isinstance(rest, ChatInput):
        return None
    return ChatInput((Message(Role.SYSTEM, "Answer in as few words as possible."), *rest.messages))


def with_one_word_changed(job: CalibrationJob) -> InferenceInput | None:
    """One word of the last message, or of the text, replaced; which one follows from the job."""
    digest = tagged_hash(b"changed word", bytes.fromhex(job.job_id))
    if isinstance(job.input, TextInput):
        return TextInput(_change_word(job.input.text, digest))
    if not isinstance(job.input, ChatInput):
        return None
    *others, last = job.input.messages
    return ChatInput((*others, replace(last, content=_change_word(last.content, digest))))


def _change_word(text: str, digest: bytes) -> str:
    words = text.split(" ")
    place = int.from_bytes(digest[:4], "little") % len(words)
    start = digest[4] % len(_WORDS)
    word = next(w for w in (*_WORDS[start:], *_WORDS[:start]) if w != words[place])
    return " ".join([*words[:place], word, *words[place + 1 :]])


_CHANGES = {
    "no-system-message": without_system_message,
    "other-system-message": with_other_system_message,
    "changed-word": with_one_word_changed,
}


@dataclass(frozen=True, slots=True)
class OtherTemperature:
    """Samples a little colder than asked; no fraud where the request is greedy."""

    name: str = "colder"
    family: Family = Family.REQUEST
    weights: Alteration | None = None

    def asks(self, job: CalibrationJob) -> list[Asked]:
        """The job at 79/80 of its temperature."""
        if job.sampling.temperature_milli == 0:
            return []
        numerator, denominator = CHEAPER_TEMPERATURE
        milli = job.sampling.temperature_milli * numerator // denominator
        return [Asked(job.input, replace(job.sampling, temperature_milli=milli), job.seed)]

    def claims(self, job: CalibrationJob, completions: Sequence[Completion]) -> Completion:
        """What came out."""
        return completions[0]


@dataclass(frozen=True, slots=True)
class Greedy:
    """Takes the likeliest token where sampling was asked for."""

    name: str = "greedy"
    family: Family = Family.REQUEST
    weights: Alteration | None = None

    def asks(self, job: CalibrationJob) -> list[Asked]:
        """The job at temperature 0."""
        if job.sampling.temperature_milli == 0:
            return []
        return [Asked(job.input, replace(job.sampling, temperature_milli=0), job.seed)]

    def claims(self, job: CalibrationJob, completions: Sequence[Completion]) -> Completion:
        """What came out."""
        return completions[0]


@dataclass(frozen=True, slots=True)
class OtherSeed:
    """Samples with seeds of its own: one, or the one of several whose output is likeliest."""

    seeds: int = 1
    family: Family = Family.REQUEST
    weights: Alteration | None = None

    @property
    def name(self) -> str:
        """wrong-seed or ground-seed."""
        return "wrong-seed" if self.seeds == 1 else "ground-seed"

    def asks(self, job: CalibrationJob) -> list[Asked]:
        """The job with each seed; a greedy request has no use for seeds."""
        if job.sampling.temperature_milli == 0:
            return []
        seeds = [tagged_hash(b"own seed", job.seed, bytes([n])) for n in range(self.seeds)]
        return [Asked(job.input, job.sampling, seed) for seed in seeds]

    def claims(self, job: CalibrationJob, completions: Sequence[Completion]) -> Completion:
        """The output of greatest mean log-probability."""
        return max(completions, key=lambda c: sum(c.logprobs) / len(c.logprobs))


@dataclass(frozen=True, slots=True)
class SwappedTokens:
    """Exchanges two neighbouring output tokens, each with its log-probability."""

    name: str = "swapped-tokens"
    family: Family = Family.RESULT
    weights: Alteration | None = None

    def asks(self, job: CalibrationJob) -> list[Asked]:
        """The job."""
        return [asked_of(job)]

    def claims(self, job: CalibrationJob, completions: Sequence[Completion]) -> Completion:
        """One pair exchanged, the first different one from a place that follows from the job."""
        completion = completions[0]
        ids, logprobs = list(completion.token_ids), list(completion.logprobs)
        # The last token may be the one that ends the output; it stays where it is.
        pairs = max(min(len(ids) - 2, SWAP_WITHIN), 0)
        start = int(job.job_id[2:10], 16)
        for offset in range(pairs):
            place = (start + offset) % pairs
            if ids[place] != ids[place + 1]:
                ids[place : place + 2] = ids[place + 1], ids[place]
                logprobs[place : place + 2] = logprobs[place + 1], logprobs[place]
                break
        return replace(completion, token_ids=tuple(ids), logprobs=tuple(logprobs))


@dataclass(frozen=True, slots=True)
class Forger:
    """Generates with cheap weights, then asks the true model for the log-probabilities to claim."""

    weights: Alteration
    family: Family = Family.ADAPTIVE

    @property
    def name(self) -> str:
        """forger-int8, forger-int4, and so on."""
        return f"forger-{self.weights.name}"

    @property
    def source(self) -> str:
        """The fraud whose tokens it claims."""
        return self.weights.name


STEERER = "steerer"


def simple_frauds() -> list[Fraud]:
    """Every fraud that is committed by answering something else."""
    return [
        OtherWeights(Rounded("int8")),
        OtherWeights(Rounded("fp8")),
        OtherWeights(Rounded("int4")),
        OtherWeights(Noisy()),
        OtherWeights(DroppedLayer()),
        OtherWeights(SmallerModel()),
        OtherWeights(OtherModel()),
        OtherRequest("no-system-message"),
        OtherRequest("other-system-message"),
        OtherRequest("changed-word"),
        OtherTemperature(),
        Greedy(),
        OtherSeed(),
        OtherSeed(GROUND_SEEDS),
        SwappedTokens(),
    ]


def forgers() -> list[Forger]:
    """Frauds made of other frauds' tokens and the true model's log-probabilities."""
    return [Forger(Rounded("int8")), Forger(Rounded("int4"))]


def families() -> dict[str, Family]:
    """The family of every fraud by name, the steerer included."""
    known: dict[str, Family] = {fraud.name: fraud.family for fraud in simple_frauds()}
    known.update({fraud.name: fraud.family for fraud in forgers()})
    known[STEERER] = Family.ADAPTIVE
    return known
