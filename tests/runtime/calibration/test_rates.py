import pytest

from runtime.calibration.cli import RateTeller


def test_progress_is_told_at_most_every_five_seconds_and_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now_s = 0.0
    teller = RateTeller(lambda: now_s)
    for done in range(1, 13):
        teller("working", done, 12)
        now_s += 2.0
    assert capsys.readouterr().err.splitlines() == [
        "working: 1 of 12",
        "working: 4 of 12, 0.50/s, 16 s to go",
        "working: 7 of 12, 0.50/s, 10 s to go",
        "working: 10 of 12, 0.50/s, 4 s to go",
        "working: 12 of 12, 0.50/s, 0 s to go",
    ]


def test_the_next_kind_of_work_has_its_own_rate(capsys: pytest.CaptureFixture[str]) -> None:
    now_s = 0.0
    teller = RateTeller(lambda: now_s)
    teller("first", 1, 2)
    now_s = 100.0
    teller("second", 1, 2)
    now_s = 101.0
    teller("second", 2, 2)
    assert capsys.readouterr().err.splitlines() == [
        "first: 1 of 2",
        "second: 1 of 2",
        "second: 2 of 2, 1.00/s, 0 s to go",
    ]
