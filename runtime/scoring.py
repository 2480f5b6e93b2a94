"""Scores of a claimed result: integers that say how far it is from what the rule gives. Part of
the protocol.

Position i is scored against the verifier's own logits after the prompt and the claimed tokens
before i. Let L = min(max_output_tokens, context - prompt tokens) be the most tokens an output may
have.

- Scored are the first min(claimed tokens, L) positions; `positions` is their number.
- replay_mismatches: the rule of `runtime.sampling` gives another token here.
- margin: how far the verifier's logits are from some by which the rule gives the claimed token, as
  `runtime.replay` defines it, at the edges of top_k and top_p too; in 2^-20 units.
- distance: |claimed - own| raw log-probability of the claimed token; a missing claim counts the
  clip.
- Each margin and distance is rounded (halves up) and clipped at 2^24 before max and sum.
- outside_candidates: the claimed token is not among the 64 candidates; so is an end token before
  min_tokens.
- An id outside the vocabulary can't be fed to the model: it and every position after it count the
  clip for margin and distance, a mismatch, and outside candidates.
- doubt_sum: how much honest engines may differ here. A token of raw log-probability -x nats has a
  doubt of x / (1 + x) by the verifier's own x; a position with such an id has none.
- opening_margin_sum, opening_distance_sum, opening_doubt_sum: the same sums over the first 32
  scored positions, for what adds up over many jobs.
- finish_plausible: the rules of `runtime.detokenizer` end the claimed tokens at the last one, for
  the claimed reason (never by an end token or a stop string before min_tokens), and there are as
  many log-probabilities as tokens. text_matches: its text is the claimed one.

A claim by the same engine profile that followed the rule scores zero in all of replay_mismatches,
margin, distance and outside_candidates, at every position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.detokenizer import EndRules, TokenBytes, ending_of
from runtime.engine import (
    MAX_FINGERPRINT_POSITIONS,
    Completion,
    FinishReason,
    RequestError,
    RequestReason,
    Scores,
)
from runtime.replay import REPLAY_COLUMNS
from runtime.sampling import LOGPROB_LOWEST, LOGPROB_UNITS_PER_NAT, MARGIN_CLIP

OPENING_TOKENS = 32
"""What bets over many jobs look at of an output (`runtime.calibration.eprocess`)."""
_TOKEN, _MARGIN, _OWN, _RUNNER_UP, _CANDIDATE = range(REPLAY_COLUMNS)


@dataclass(frozen=True, slots=True)
class ClaimShape:
    """What of a claim is scored, and what of it can be fed to the model."""

    scored: int
    readable: int
    """Leading scored positions whose ids are within the vocabulary."""


def claim_shape(claim: Completion, vocabulary: int, limit: int) -> ClaimShape:
    """`limit` is L above."""
    scored = min(len(claim.token_ids), limit)
    readable = 0
    while readable < scored and 0 <= claim.token_ids[readable] < vocabulary:
        readable += 1
    return ClaimShape(scored, readable)


@dataclass(frozen=True, slots=True)
class EndingScore:
    """How a claim's end compares with the rules."""

    finish_plausible: bool
    text_matches: bool


def score_ending(
    claim: Completion,
    shape: ClaimShape,
    token_bytes: TokenBytes,
    rules: EndRules,
) -> EndingScore:
    """Apply the rules of `runtime.detokenizer` to the claimed tokens."""
    ending = ending_of(claim.token_ids[: shape.readable], token_bytes, rules)
    whole = ending.tokens == len(claim.token_ids) == len(claim.logprobs)
    ended = ending.finish_reason is not FinishReason.UNSPECIFIED
    return EndingScore(
        finish_plausible=whole and ended and ending.finish_reason == claim.finish_reason,
        text_matches=whole and ending.text == claim.text,
    )


def check_positions(positions: Sequence[int], claimed_tokens: int) -> None:
    """Check fingerprint positions. Raises RequestError."""
    if len(positions) > MAX_FINGERPRINT_POSITIONS:
        raise RequestError(
            RequestReason.BAD_FINGERPRINT_POSITION,
            f"{len(positions)} fingerprint positions, allowed are {MAX_FINGERPRINT_POSITIONS}",
        )
    for position in positions:
        if not 0 <= position < claimed_tokens:
            raise RequestError(
                RequestReason.BAD_FINGERPRINT_POSITION,
                f"fingerprint position {position} is outside the {claimed_tokens} claimed tokens",
            )


def score(
    claim: Completion,
    shape: ClaimShape,
    replay: np.ndarray,
    input_tokens: int,
    ending: EndingScore,
) -> Scores:
    """Scores from `replay`, int64[shape.readable, REPLAY_COLUMNS] as `replay_rows` fills it."""
    unreadable = shape.scored - shape.readable
    margins = [int(value) for value in replay[:, _MARGIN]] + [MARGIN_CLIP] * unreadable
    distances = [
        _distance(claim.logprobs, position, int(replay[position, _OWN]))
        for position in range(shape.readable)
    ] + [MARGIN_CLIP] * unreadable
    mismatches = sum(
        int(replay[position, _TOKEN]) != claim.token_ids[position]
        for position in range(shape.readable)
    )
    outside = shape.readable - int(replay[:, _CANDIDATE].sum())
    doubts = [doubt_of(int(own)) for own in replay[:, _OWN]]
    return Scores(
        positions=shape.scored,
        replay_mismatches=mismatches + unreadable,
        margin_max=max(margins, default=0),
        margin_sum=sum(margins),
        distance_max=max(distances, default=0),
        distance_sum=sum(distances),
        outside_candidates=outside + unreadable,
        doubt_sum=sum(doubts),
        input_tokens=input_tokens,
        finish_plausible=ending.finish_plausible,
        text_matches=ending.text_matches,
        opening_margin_sum=sum(margins[:OPENING_TOKENS]),
        opening_distance_sum=sum(distances[:OPENING_TOKENS]),
        opening_doubt_sum=sum(doubts[:OPENING_TOKENS]),
    )


def doubt_of(logprob: int) -> int:
    """x / (1 + x) in 2^-20, rounded down, for a log-probability of -x nats, given in 2^-20 nats.

    Rounding errors of logits move the log-probability of a token that is all but certain hardly at
    all, that of an unlikely one by as much as a logit; what lies between follows this curve
    (docs/decisions/0022). Integers alone, so that the same log-probability gives the same bits.
    """
    surprise = max(-logprob, 0)
    return surprise * LOGPROB_UNITS_PER_NAT // (surprise + LOGPROB_UNITS_PER_NAT)


def fingerprint(replay: np.ndarray, positions: Sequence[int]) -> tuple[int, ...]:
    """Own log-probability of the runner-up at each position; the lowest where there was nothing to
    read."""
    return tuple(
        int(replay[position, _RUNNER_UP]) if position < len(replay) else LOGPROB_LOWEST
        for position in positions
    )


def _distance(logprobs: Sequence[int], position: int, own: int) -> int:
    if position >= len(logprobs):
        return MARGIN_CLIP
    return min(abs(logprobs[position] - own), MARGIN_CLIP)
