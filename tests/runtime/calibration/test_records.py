from pathlib import Path

import numpy as np
import pytest

from runtime.calibration.records import (
    RecordError,
    RecordFile,
    Transcript,
    replay_key,
    replay_row,
)
from runtime.calibration.sides import Replay
from runtime.engine import SamplingRule

ROW = Transcript("ab" * 16, "honest", "engine", 8, (1, 2), (-3, -4), 2)
OTHER = Transcript("cd" * 16, "int8", "engine", 1, (), (), 1)
ITEM = Replay((7, 8), SamplingRule(800, 0, 0, 64), bytes(32), (5, 6, 9))


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "transcripts.jsonl"
    with RecordFile(path, Transcript) as file:
        file.add(ROW)
        file.add(OTHER)
    with RecordFile(path, Transcript) as file:
        assert list(file) == [ROW, OTHER]
        assert ROW.key in file
        assert len(file) == 2


def test_a_line_cut_off_in_the_middle_is_cut_away(tmp_path: Path) -> None:
    path = tmp_path / "transcripts.jsonl"
    with RecordFile(path, Transcript) as file:
        file.add(ROW)
        file.add(OTHER)
    path.write_bytes(path.read_bytes()[:-9])
    with RecordFile(path, Transcript) as file:
        assert list(file) == [ROW]
        file.add(OTHER)
    with RecordFile(path, Transcript) as file:
        assert list(file) == [ROW, OTHER]


@pytest.mark.parametrize("line", [b"what?\n", b"[1]\n", b'{"job":"ab"}\n'])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "transcripts.jsonl"
    path.write_bytes(line)
    with pytest.raises(RecordError, match=r"transcripts.jsonl:1: not a record"):
        RecordFile(path, Transcript)


def test_a_replay_is_known_by_all_it_depends_on() -> None:
    others = [
        Replay((7,), ITEM.sampling, ITEM.seed, ITEM.token_ids),
        Replay(ITEM.prompt_ids, SamplingRule(801, 0, 0, 64), ITEM.seed, ITEM.token_ids),
        Replay(ITEM.prompt_ids, ITEM.sampling, bytes(31) + b"x", ITEM.token_ids),
        Replay(ITEM.prompt_ids, ITEM.sampling, ITEM.seed, (5, 6)),
    ]
    assert len({replay_key(item) for item in (ITEM, *others)}) == 5
    longer = Replay(ITEM.prompt_ids, SamplingRule(800, 0, 0, 128), ITEM.seed, ITEM.token_ids)
    assert replay_key(longer) == replay_key(ITEM)


def test_a_row_says_where_tokens_differ_and_where_they_are_no_candidates() -> None:
    columns = np.array([[5, 0, -1, -2, 1], [4, 8, -9, -3, 1], [9, 0, -4, -5, 0]], np.int64)
    row = replay_row(ITEM, columns)
    assert (row.margins, row.own, row.runners_up) == ((0, 8, 0), (-1, -9, -4), (-2, -3, -5))
    assert (row.mismatches, row.outside) == ((1,), (2,))
