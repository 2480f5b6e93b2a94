"""The requests of a calibration: varied, distinct, and the same for everybody from one seed."""

import hashlib
import random
from dataclasses import dataclass

from ext.hashing import tagged_hash
from runtime.calibration.prompts import (
    CONTINUATIONS,
    FOLLOW_UPS,
    FORMS,
    QUESTIONS,
    READERS,
    SYSTEM_MESSAGES,
    TASKS,
    TOPICS,
)
from runtime.engine import (
    ChatInput,
    InferenceInput,
    Message,
    Role,
    SamplingRule,
    TextInput,
)

TEMPERATURES_MILLI = (0, 800, 1_200)
LONG_EVERY = 4
"""One job in so many of each temperature may be as long as the corpus allows; the others stop at
a quarter of that: long outputs cost most, and short ones make up most of what models are asked."""
FITTING_SHARE = 4
"""One job in so many is for fitting; bounds on rejections need the others more."""
CORPUS_TAG = b"calibration corpus"
SEED_TAG = b"calibration seed"
ID_BYTES = 16
MAX_JOBS = 100_000
_ATTEMPTS = 1_000


@dataclass(frozen=True, slots=True)
class CalibrationJob:
    """One request."""

    index: int
    job_id: str
    """Hexadecimal; a digest of the corpus seed and the index."""
    input: InferenceInput
    sampling: SamplingRule
    seed: bytes
    """The public seed, 32 bytes."""

    @property
    def fits(self) -> bool:
        """Whether the job lies in the part that thresholds are fitted on, by its hash alone."""
        return is_for_fitting(self.job_id)

    @property
    def is_long(self) -> bool:
        """Whether its output may be as long as the corpus allows."""
        return is_long(self.index)

    @property
    def has_system(self) -> bool:
        """Whether it is a chat that begins with a system message."""
        return isinstance(self.input, ChatInput) and self.input.messages[0].role is Role.SYSTEM


def is_long(index: int) -> bool:
    """As `CalibrationJob.is_long`; the rounds of temperatures take turns."""
    return index // len(TEMPERATURES_MILLI) % LONG_EVERY == 0


def is_for_fitting(job_id: str) -> bool:
    """Whether thresholds are fitted on this job; the others tell what the thresholds do."""
    return int(job_id[:2], 16) % FITTING_SHARE == 0


def build_corpus(
    seed: int,
    jobs: int,
    max_output_tokens: int,
    temperatures_milli: tuple[int, ...] = TEMPERATURES_MILLI,
) -> list[CalibrationJob]:
    """`jobs` distinct requests; a longer corpus of the same seed begins with the shorter one.

    Temperatures and lengths take turns. Raises ValueError for a count out of bounds.
    """
    if not 1 <= jobs <= MAX_JOBS:
        raise ValueError(f"a corpus of {jobs} jobs was asked for, allowed are 1 to {MAX_JOBS}")
    seen: set[InferenceInput] = set()
    found = []
    for index in range(jobs):
        digest = tagged_hash(CORPUS_TAG, seed.to_bytes(8, "little"), index.to_bytes(8, "little"))
        asked = _distinct(random.Random(int.from_bytes(digest, "little")), seen)
        temperature_milli = temperatures_milli[index % len(temperatures_milli)]
        limit = max_output_tokens if is_long(index) else max(1, max_output_tokens // 4)
        sampling = SamplingRule(temperature_milli, 0, 0, limit)
        job_id = digest[:ID_BYTES].hex()
        found.append(CalibrationJob(index, job_id, asked, sampling, tagged_hash(SEED_TAG, digest)))
    return found


def corpus_digest(jobs: list[CalibrationJob]) -> str:
    """SHA-256 over everything that is asked, so that two reports can say they asked the same."""
    digest = hashlib.sha256()
    for job in jobs:
        digest.update(repr((job.job_id, job.input, job.sampling, job.seed)).encode())
    return digest.hexdigest()


def _distinct(source: random.Random, seen: set[InferenceInput]) -> InferenceInput:
    for _ in range(_ATTEMPTS):
        asked = _compose(source)
        if asked not in seen:
            seen.add(asked)
            return asked
    raise ValueError("the templates hold no more distinct requests; ask for fewer jobs")


def _compose(source: random.Random) -> InferenceInput:
    kind = source.random()
    if kind < 0.12:
        opening = source.choice(CONTINUATIONS)
        return TextInput(opening.replace("{topic}", source.choice(TOPICS)))
    messages = []
    if source.random() < 0.5:
        messages.append(Message(Role.SYSTEM, source.choice(SYSTEM_MESSAGES)))
    if kind < 0.3:
        messages.append(Message(Role.USER, f"{source.choice(QUESTIONS)} {source.choice(FORMS)}"))
    else:
        messages.append(Message(Role.USER, _task(source)))
    if source.random() < 0.15:
        answer = f"Gladly. First, a word about {source.choice(TOPICS)}: it matters to many people."
        messages += [
            Message(Role.ASSISTANT, answer),
            Message(Role.USER, source.choice(FOLLOW_UPS)),
        ]
    return ChatInput(tuple(messages))


def _task(source: random.Random) -> str:
    parts = [source.choice(TASKS).replace("{topic}", source.choice(TOPICS))]
    if source.random() < 0.6:
        parts.append(source.choice(READERS))
    if source.random() < 0.7:
        parts.append(source.choice(FORMS))
    if source.random() < 0.1:
        # A long input: a list to read before the question.
        listed = source.sample(TOPICS, 24)
        notes = " ".join(f"{number}. {topic};" for number, topic in enumerate(listed, start=1))
        parts.insert(0, f"These are my notes, in the order I wrote them: {notes}")
    return " ".join(parts)
