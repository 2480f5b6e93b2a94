"""Evidence of jobs that nobody ran, with scores that a test chooses."""

import hashlib
from collections.abc import Sequence

import numpy as np

from runtime.calibration.evidence import Evidence

DOUBT = 1 << 19


def job_id(number: int) -> str:
    return hashlib.sha256(number.to_bytes(8, "little")).hexdigest()[:32]


def make_evidence(
    number: int,
    margins: Sequence[int] = (0,) * 32,
    distances: Sequence[int] | None = None,
    fraud: str = "honest",
) -> Evidence:
    """One job whose mismatches are where its margins are not zero, every token half in doubt."""
    margin_array = np.array(margins, np.int64)
    return Evidence(
        job=job_id(number),
        fraud=fraud,
        token_ids=tuple(range(len(margins))),
        margins=margin_array,
        distances=np.zeros_like(margin_array)
        if distances is None
        else np.array(distances, np.int64),
        mismatches=(margin_array > 0).astype(np.int64),
        outside=np.zeros_like(margin_array),
        doubts=np.full_like(margin_array, DOUBT),
    )


def noisy_jobs(
    first: int, count: int, margin_share: float, scale: int, seed: int, tokens: int = 64
) -> list[Evidence]:
    """Jobs with exponential distances of a mean, and as large margins at a share of positions."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(first, first + count):
        distances = random.exponential(scale, tokens).astype(np.int64)
        margins = random.exponential(scale, tokens).astype(np.int64) + 1
        margins[random.random(tokens) >= margin_share] = 0
        found.append(make_evidence(number, margins.tolist(), distances.tolist()))
    return found
