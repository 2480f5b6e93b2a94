"""From replays to scores of a transcript and of every shorter one.

The public seed and the prompt fix an output token by token, so the first n tokens of a transcript
are what the same job would have given with max_output_tokens = n: one replay scores all lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.calibration.corpus import is_for_fitting
from runtime.calibration.records import ReplayRow, Transcript
from runtime.sampling import LOGPROB_UNITS_PER_NAT, MARGIN_CLIP
from runtime.scoring import doubt_of

LENGTHS = (32, 64, 128, 256)
"""Output lengths that are reported."""
FITTED_LENGTHS = (16, *LENGTHS)
"""Lengths below that of an output at which bounds must hold, too."""
DOUBT_ONE = LOGPROB_UNITS_PER_NAT


@dataclass(frozen=True, slots=True)
class PrefixScores:
    """The numbers of assay.v1.Scores that thresholds look at; units of 2^-20 nats."""

    positions: int
    replay_mismatches: int
    margin_max: int
    margin_sum: int
    distance_max: int
    distance_sum: int
    outside_candidates: int
    doubt_sum: int

    def for_doubt(self, total: int) -> int:
        """A sum for each unit of doubt, rounded up; one unit more stands for what is hardly
        in doubt at all, whose ratio would be noise."""
        return -(-total * DOUBT_ONE // (self.doubt_sum + DOUBT_ONE))


@dataclass(frozen=True, slots=True)
class Evidence:
    """One transcript as one verifier sees it, position by position."""

    job: str
    fraud: str
    token_ids: tuple[int, ...]
    margins: np.ndarray
    distances: np.ndarray
    mismatches: np.ndarray
    """0 or 1, like `outside`; these five are int64[tokens]."""
    outside: np.ndarray
    doubts: np.ndarray
    """Of each claimed token, by the verifier's log-probabilities; in 2^-20."""

    @property
    def tokens(self) -> int:
        """Length of the output."""
        return len(self.margins)

    @property
    def fits(self) -> bool:
        """As `CalibrationJob.fits`."""
        return is_for_fitting(self.job)

    def prefix(self, tokens: int) -> PrefixScores:
        """Scores of the first so many tokens, or of all if there are fewer."""
        margins, distances = self.margins[:tokens], self.distances[:tokens]
        return PrefixScores(
            positions=len(margins),
            replay_mismatches=int(self.mismatches[:tokens].sum()),
            margin_max=int(margins.max(initial=0)),
            margin_sum=int(margins.sum()),
            distance_max=int(distances.max(initial=0)),
            distance_sum=int(distances.sum()),
            outside_candidates=int(self.outside[:tokens].sum()),
            doubt_sum=int(self.doubts[:tokens].sum()),
        )

    def prefixes(self, lengths: Sequence[int] = LENGTHS) -> list[PrefixScores]:
        """Scores of the whole output and of each length below it."""
        shorter = [length for length in lengths if length < self.tokens]
        return [self.prefix(length) for length in [*shorter, self.tokens]]


def evidence_of(transcript: Transcript, replay: ReplayRow) -> Evidence:
    """Compare claimed log-probabilities with a verifier's own, as `runtime.scoring` does.

    Raises ValueError when the two are not of the same tokens.
    """
    tokens = len(transcript.token_ids)
    if not tokens == len(replay.margins) == len(transcript.logprobs):
        raise ValueError(
            f"transcript {transcript.key} has {tokens} tokens and {len(transcript.logprobs)} "
            f"log-probabilities, its replay {len(replay.margins)}"
        )
    claimed = np.array(transcript.logprobs, np.int64)
    flags = np.zeros((2, tokens), np.int64)
    flags[0, list(replay.mismatches)] = 1
    flags[1, list(replay.outside)] = 1
    return Evidence(
        job=transcript.job,
        fraud=transcript.fraud,
        token_ids=transcript.token_ids,
        margins=np.array(replay.margins, np.int64),
        distances=np.minimum(np.abs(claimed - np.array(replay.own, np.int64)), MARGIN_CLIP),
        mismatches=flags[0],
        outside=flags[1],
        doubts=np.array([doubt_of(own) for own in replay.own], np.int64),
    )
