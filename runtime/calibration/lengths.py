"""Whether bounds hold at every length: at each position an output could end, and far beyond the
longest that was measured."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.calibration.evidence import Evidence, PrefixScores
from runtime.calibration.thresholds import Thresholds, judge

STRUNG_JOBS = 16
STRUNG_DRAWS = 1_000


def joined(parts: Sequence[PrefixScores]) -> PrefixScores:
    """Scores of an output that is made of these, one after another."""
    return PrefixScores(
        positions=sum(part.positions for part in parts),
        replay_mismatches=sum(part.replay_mismatches for part in parts),
        margin_max=max(part.margin_max for part in parts),
        margin_sum=sum(part.margin_sum for part in parts),
        distance_max=max(part.distance_max for part in parts),
        distance_sum=sum(part.distance_sum for part in parts),
        outside_candidates=sum(part.outside_candidates for part in parts),
        doubt_sum=sum(part.doubt_sum for part in parts),
    )


def at_every_length(honest: Sequence[Evidence], thresholds: Thresholds) -> dict[str, int]:
    """Prefixes of all lengths, and how many of them and of the jobs are rejected."""
    rejected = [
        sum(judge(e.prefix(n), thresholds).registered for n in range(1, e.tokens + 1))
        for e in honest
    ]
    return {
        "prefixes": sum(e.tokens for e in honest),
        "prefixes_rejected": sum(rejected),
        "jobs": len(honest),
        "jobs_rejected": sum(count > 0 for count in rejected),
    }


def strung_together(honest: Sequence[Evidence], thresholds: Thresholds) -> dict[str, Any]:
    """Outputs as long as `STRUNG_JOBS` of the longest ones, drawn and set one after another.

    It stands in for outputs that nobody generated: it shows what sums do, and not what one long
    text may do that many short ones don't.
    """
    longest = max((e.tokens for e in honest), default=0)
    whole = [e.prefix(longest) for e in honest if e.tokens == longest]
    source = np.random.default_rng(longest)
    rejected = 0
    draws = STRUNG_DRAWS if whole else 0
    for _ in range(draws):
        drawn = joined([whole[place] for place in source.integers(0, len(whole), STRUNG_JOBS)])
        rejected += judge(drawn, thresholds).registered
    return {"output_tokens": STRUNG_JOBS * longest, "drawn": draws, "rejected": rejected}
