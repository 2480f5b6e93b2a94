"""The steerer: a cheat that runs the true model, knows the thresholds, and chooses within them.

At each position it takes, of the tokens whose noisy score is so close to the best that all bounds
on margins still hold, the one it likes best. Its liking stands for an advertisement, a watermark, a
hidden message: here a fixed order of all tokens that has nothing to do with the model. It keeps
account of mismatches, margins and doubt, and is honest where the bounds have nothing left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.calibration.thresholds import ONE, Bound
from runtime.engine import Completion, FinishReason, SamplingRule
from runtime.reference.engine import ReferenceEngine
from runtime.sampling import (
    CANDIDATES,
    LOGPROB_UNITS_PER_NAT,
    noise,
    rule_array,
    sample_rows,
    seed_words,
)
from runtime.scoring import doubt_of

_LIKING_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a steerer thinks it may do."""

    margin_max: int
    """In 2^-20 nats, at each position."""
    mismatch_bound: Bound
    margin_bound: Bound


@dataclass(slots=True)
class Account:
    """What has been used of an allowance."""

    mismatches: int = 0
    margins: int = 0
    doubt: int = 0

    def allows(self, margin: int, allowance: Allowance) -> bool:
        """Whether one more mismatch of this margin is within every bound."""
        return (
            margin <= allowance.margin_max
            and allowance.margin_bound.is_within(self.margins + margin, self.doubt)
            and allowance.mismatch_bound.is_within((self.mismatches + 1) * ONE, self.doubt)
        )


def liking(token_ids: np.ndarray) -> np.ndarray:
    """uint64 of the same shape; the greatest is liked best."""
    mixed: np.ndarray = (token_ids.astype(np.uint64) + np.uint64(1)) * _LIKING_FACTOR
    stirred: np.ndarray = mixed ^ (mixed >> np.uint64(29))
    return stirred


def steer(
    engine: ReferenceEngine,
    prompt_ids: Sequence[int],
    sampling: SamplingRule,
    seed: bytes,
    allowance: Allowance,
) -> Completion:
    """The steered output with its true log-probabilities, and without its text.

    Raises ValueError for stop strings, which it does not follow.
    """
    if sampling.stop:
        raise ValueError("a steered request has no stop strings")
    limit = min(sampling.max_output_tokens, engine.context_tokens - len(prompt_ids))
    sequence = engine.model.sequence(len(prompt_ids) + limit)
    words = seed_words(seed)
    end_ids = frozenset(engine.package.config().end_token_ids)
    rule = rule_array(sampling, seed, end_ids)
    pending: list[int] = list(prompt_ids)
    token_ids: list[int] = []
    logprobs: list[int] = []
    used = Account()
    while len(token_ids) < limit and not (token_ids and token_ids[-1] in end_ids):
        logits = engine.model.extend(sequence, pending, len(pending) - 1)
        true_id, true_logprob = _sampled(logits, len(token_ids), rule)
        margins = dict(noisy_margins(logits[0], len(token_ids), words, sampling))
        allowed = [t for t, m in margins.items() if t == true_id or used.allows(m, allowance)]
        within = np.array(allowed, np.int64)
        token_id = int(within[np.argmax(liking(within))])
        if token_id != true_id:
            used.mismatches += 1
            used.margins += margins[token_id]
        # Log-probabilities of one row differ as its logits do.
        difference = float(logits[0, token_id]) - float(logits[0, true_id])
        token_ids.append(token_id)
        logprobs.append(min(true_logprob + round(difference * LOGPROB_UNITS_PER_NAT), 0))
        used.doubt += doubt_of(logprobs[-1])
        pending = [token_id]
    finish = FinishReason.STOP if token_ids[-1] in end_ids else FinishReason.LENGTH
    return Completion(
        tuple(token_ids), tuple(logprobs), finish, len(prompt_ids), "", engine.profile
    )


def noisy_margins(
    row: np.ndarray, position: int, words: np.ndarray, sampling: SamplingRule
) -> list[tuple[int, int]]:
    """(token id, units its noisy score lacks to the best) of the 64 candidates of a row."""
    count = min(CANDIDATES, row.size)
    ids = np.argpartition(row, row.size - count)[row.size - count :]
    ids = ids[np.isfinite(row[ids])]
    values = row[ids].astype(np.float64)
    if sampling.temperature_milli:
        values *= 1000 / sampling.temperature_milli
        values += np.array([noise(int(token_id), position, words) for token_id in ids])
    lacking = np.floor((values.max() - values) * LOGPROB_UNITS_PER_NAT + 0.5)
    return [(int(t), int(m)) for t, m in zip(ids, lacking, strict=True)]


def _sampled(logits: np.ndarray, position: int, rule: np.ndarray) -> tuple[int, int]:
    token_ids, logprobs = np.empty(1, np.int64), np.empty(1, np.int64)
    sample_rows(logits, position, rule, token_ids, logprobs)
    return int(token_ids[0]), int(logprobs[0])
