import pytest

from runtime.calibration.evidence import PrefixScores, evidence_of
from runtime.calibration.records import ReplayRow, Transcript
from runtime.sampling import MARGIN_CLIP
from tests.runtime.calibration.builders import DOUBT, make_evidence

TRANSCRIPT = Transcript("ab" * 16, "honest", "engine", 8, (5, 6, 7), (-10, -20, -30), 2)
REPLAY = ReplayRow("key", (0, 4, 0), (-10, -25, -(1 << 30)), (-1, -2, -3), (1,), (2,))


def test_a_prefix_scores_its_own_tokens_only() -> None:
    evidence = make_evidence(1, margins=[0, 7, 0, 3], distances=[1, 2, 3, 90])
    assert evidence.prefix(3) == PrefixScores(3, 1, 7, 7, 3, 6, 0, 3 * DOUBT)
    assert (
        evidence.prefix(9) == evidence.prefix(4) == PrefixScores(4, 2, 7, 10, 90, 96, 0, 4 * DOUBT)
    )


def test_a_sum_is_told_for_each_unit_of_doubt_and_one_more() -> None:
    scores = make_evidence(1, margins=[0] * 64, distances=[1] * 64).prefix(64)
    assert scores.for_doubt(330) == 10
    assert scores.for_doubt(331) == 11
    assert make_evidence(1, []).prefix(0).for_doubt(0) == 0


def test_prefixes_are_the_lengths_below_the_output_and_the_output() -> None:
    evidence = make_evidence(1, margins=[0] * 64)
    assert [scores.positions for scores in evidence.prefixes()] == [32, 64]
    assert [scores.positions for scores in make_evidence(1, [0] * 5).prefixes()] == [5]


def test_a_transcript_is_compared_with_its_replay_position_by_position() -> None:
    evidence = evidence_of(TRANSCRIPT, REPLAY)
    assert evidence.distances.tolist() == [0, 5, MARGIN_CLIP]
    assert evidence.margins.tolist() == [0, 4, 0]
    assert evidence.mismatches.tolist() == [0, 1, 0]
    assert evidence.outside.tolist() == [0, 0, 1]
    assert evidence.doubts.tolist() == [9, 24, (1 << 20) - 1024]


def test_a_replay_of_other_tokens_is_refused() -> None:
    short = ReplayRow("key", (0,), (-10,), (-1,), (), ())
    with pytest.raises(ValueError, match="has 3 tokens and 3 log-probabilities, its replay 1"):
        evidence_of(TRANSCRIPT, short)
