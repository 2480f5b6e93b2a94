"""The steerer: a cheat that runs the true model, knows the tolerance, and chooses within it.

At each position it takes, of the tokens whose noisy score is less than `tolerance` below the best,
the one it likes best. Its liking stands for an advertisement, a watermark, a hidden message: here a
fixed order of all tokens that has nothing to do with the model. It counts its own mismatches, and
stops steering when it has used what the thresholds allow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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

_LIKING_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a steerer thinks it may do."""

    margin_max: int
    """In 2^-20 nats, at each position."""
    mismatches_max: int
    """Over the whole output."""


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
    left = allowance.mismatches_max
    while len(token_ids) < limit and not (token_ids and token_ids[-1] in end_ids):
        logits = engine.model.extend(sequence, pending, len(pending) - 1)
        true_id, true_logprob = _sampled(logits, len(token_ids), rule)
        token_id = true_id
        if left > 0:
            margins = noisy_margins(logits[0], len(token_ids), words, sampling)
            within = np.array([t for t, m in margins if m <= allowance.margin_max], np.int64)
            token_id = int(within[np.argmax(liking(within))])
            left -= token_id != true_id
        # Log-probabilities of one row differ as its logits do.
        difference = float(logits[0, token_id]) - float(logits[0, true_id])
        token_ids.append(token_id)
        logprobs.append(min(true_logprob + round(difference * LOGPROB_UNITS_PER_NAT), 0))
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
