"""Files of a calibration under way: one JSON object a line, appended as work gets done.

A run that was interrupted goes on where it stopped: what has a line is not done again, and a line
cut off in the middle is cut away.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from runtime.calibration.sides import Replay

KEY_BYTES = 16
TOKEN, MARGIN, OWN, RUNNER_UP, CANDIDATE = range(5)
"""Columns of a replay; see `runtime.sampling.replay_rows`."""
Row = TypeVar("Row", "Transcript", "ReplayRow")


class RecordError(ValueError):
    """A file does not hold what a calibration wrote."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What one provider put forward for one job."""

    job: str
    fraud: str
    provider: str
    """Engine profile."""
    in_flight: int
    """How many generations were under way together."""
    token_ids: tuple[int, ...]
    logprobs: tuple[int, ...]
    finish_reason: int

    @property
    def key(self) -> str:
        """A job and a fraud make one transcript."""
        return f"{self.job}/{self.fraud}"


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """What one verifier found at each position of some tokens, whatever was claimed of them."""

    key: str
    """Digest of prompt, sampling, seed and tokens."""
    margins: tuple[int, ...]
    own: tuple[int, ...]
    runners_up: tuple[int, ...]
    mismatches: tuple[int, ...]
    """Positions at which the rule gives another token."""
    outside: tuple[int, ...]
    """Positions whose token is no candidate."""


def replay_key(item: Replay) -> str:
    """What a replay depends on, besides the verifier."""
    rule = item.sampling
    # Left out where they are not used, so that the keys of older files hold.
    used = rule.logprob_ceiling_milli or rule.min_tokens
    younger = (rule.logprob_ceiling_milli, rule.min_tokens) if used else ()
    asked = (
        item.prompt_ids,
        (rule.temperature_milli, rule.top_k, rule.top_p_milli, *younger),
        item.seed,
        item.token_ids,
    )
    return hashlib.sha256(repr(asked).encode()).digest()[:KEY_BYTES].hex()


def replay_row(item: Replay, columns: np.ndarray) -> ReplayRow:
    """The record of a replay, int64[tokens, 5]."""
    claimed = np.array(item.token_ids, np.int64)
    return ReplayRow(
        key=replay_key(item),
        margins=tuple(columns[:, MARGIN].tolist()),
        own=tuple(columns[:, OWN].tolist()),
        runners_up=tuple(columns[:, RUNNER_UP].tolist()),
        mismatches=tuple(np.flatnonzero(columns[:, TOKEN] != claimed).tolist()),
        outside=tuple(np.flatnonzero(columns[:, CANDIDATE] == 0).tolist()),
    )


def _parsed(kind: Callable[..., Row], values: Any) -> Row:
    if not isinstance(values, dict):
        raise TypeError("no JSON object")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


class RecordFile(Generic[Row]):
    """Rows by their keys, in memory and on disk. Use as a context manager; one writer at a time."""

    def __init__(self, path: Path, kind: Callable[..., Row]) -> None:
        """Read what is there. Raises RecordError naming file and line."""
        self._path = path
        self.rows: dict[str, Row] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.exists() else b""
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), start=1):
            try:
                row: Row = _parsed(kind, json.loads(line))
            except (ValueError, TypeError) as error:
                raise RecordError(f"{path}:{number}: not a record: {error}; remove it") from error
            self.rows[row.key] = row
        self._file = path.open("ab")
        self._file.truncate(whole)

    def __enter__(self) -> "RecordFile[Row]":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows.values())

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, row: Row) -> None:
        """Keep a row, on disk at once."""
        self.rows[row.key] = row
        self._file.write(json.dumps(asdict(row), separators=(",", ":")).encode() + b"\n")
        self._file.flush()
