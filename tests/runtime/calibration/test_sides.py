from collections.abc import Generator, Iterator

import pytest

from runtime.calibration.sides import in_turns


def counting(steps: int, log: list[str], name: str) -> Generator[None, None, str]:
    try:
        for _ in range(steps):
            log.append(name)
            yield None
    finally:
        log.append(f"{name} ended")
    return name.upper()


def works(log: list[str], **steps: int) -> Iterator[tuple[int, Generator[None, None, str]]]:
    for index, (name, count) in enumerate(steps.items()):
        yield index, counting(count, log, name)


def test_so_many_take_turns_and_the_next_starts_when_one_ends() -> None:
    log: list[str] = []
    assert list(in_turns(works(log, a=1, b=4, c=1), 2)) == [(0, "A"), (2, "C"), (1, "B")]
    assert log == ["a", "b", "a ended", "b", "b", "c", "b", "c ended", "b ended"]


def test_what_is_under_way_is_closed_when_nobody_waits_for_it() -> None:
    log: list[str] = []
    results = in_turns(works(log, a=1, b=9), 2)
    assert next(results) == (0, "A")
    results.close()  # type: ignore[attr-defined]
    assert log[-1] == "b ended"


def test_nothing_in_flight_is_refused() -> None:
    with pytest.raises(ValueError, match="in_flight is 0"):
        next(in_turns(works([], a=1), 0))
