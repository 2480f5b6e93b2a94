import hashlib
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtime.maths import (
    exp32_each,
    exp64_each,
    log64_each,
    rotary_tables,
    sine_cosine64_each,
)


def exp32(values: np.ndarray) -> np.ndarray:
    out = np.empty_like(values)
    exp32_each(values, out)
    return out


def exp64(values: np.ndarray) -> np.ndarray:
    out = np.empty_like(values)
    exp64_each(values, out)
    return out


def log64(values: np.ndarray) -> np.ndarray:
    out = np.empty_like(values)
    log64_each(values, out)
    return out


def sine_cosine64(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sines, cosines = np.empty_like(values), np.empty_like(values)
    sine_cosine64_each(values, sines, cosines)
    return sines, cosines


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(found.astype(np.float64) / expected - 1)))


def test_exp32_is_right_to_two_units_in_the_last_place() -> None:
    values = np.linspace(-86.9, 87.9, 200_003).astype(np.float32)
    assert relative_error(exp32(values), np.exp(values.astype(np.float64))) < 2 * 2.0**-23


def test_exp64_and_log64_are_right_to_four_units_in_the_last_place() -> None:
    values = np.linspace(-700, 700, 200_003)
    assert relative_error(exp64(values), np.exp(values)) < 4 * 2.0**-53
    positive = np.concatenate([np.exp(values[::7]), np.linspace(0.5, 2, 40_000)[1:-1]])
    positive = positive[np.log(positive) != 0]
    assert relative_error(log64(positive), np.log(positive)) < 4 * 2.0**-53


def test_log64_keeps_its_accuracy_just_below_one() -> None:
    values = 1 - 2.0 ** -np.arange(1, 54, dtype=np.float64)
    assert relative_error(log64(values), np.log(values)) < 4 * 2.0**-53


def test_sine_and_cosine_are_right_over_the_range_of_rotary_angles() -> None:
    values = np.linspace(-(2.0**20), 2.0**20, 200_003)
    sines, cosines = sine_cosine64(values)
    assert np.abs(sines - np.sin(values)).max() < 4 * 2.0**-53
    assert np.abs(cosines - np.cos(values)).max() < 4 * 2.0**-53


def test_exponentials_far_below_are_exactly_zero() -> None:
    assert exp32(np.array([-87.1, -1e30, -np.inf], np.float32)).tolist() == [0, 0, 0]
    assert exp64(np.array([-708.1, -1e300, -np.inf])).tolist() == [0, 0, 0]
    assert exp32(np.zeros(1, np.float32))[0] == 1
    assert exp64(np.zeros(1))[0] == 1
    assert log64(np.ones(1))[0] == 0


@given(st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=40))
def test_a_value_gives_the_same_bits_alone_and_among_others(values: list[float]) -> None:
    together = exp32(np.array(values, np.float32))
    alone = [exp32(np.array([value], np.float32))[0] for value in values]
    assert together.tolist() == alone


def test_bits_of_all_functions_are_the_ones_every_machine_must_have() -> None:
    """Pinned digests: they change only with the arithmetic, and then the engine profile must
    too."""
    steps = np.arange(-23_040, 23_041) / 256.0
    sines, cosines = sine_cosine64(steps * 1024)
    results = {
        "exp32": exp32(steps.astype(np.float32)),
        "exp64": exp64(steps * 7),
        "log64": log64(np.abs(steps) + 2.0**-30),
        "sine": sines,
        "cosine": cosines,
    }
    digests = {
        name: hashlib.sha256(values.tobytes()).hexdigest()[:16] for name, values in results.items()
    }
    assert digests == PINNED


def test_rotary_tables_hold_cosine_and_sine_of_position_times_frequency() -> None:
    cosines, sines = np.empty((300, 8), np.float32), np.empty((300, 8), np.float32)
    rotary_tables(10_000.0, np.ones(8), cosines, sines)
    for position, pair in ((0, 0), (1, 0), (299, 0), (299, 3), (17, 7)):
        angle = position * 10_000.0 ** (-2 * pair / 16)
        assert math.isclose(cosines[position, pair], math.cos(angle), abs_tol=2e-5)
        assert math.isclose(sines[position, pair], math.sin(angle), abs_tol=2e-5)
    assert cosines[0].tolist() == [1] * 8 and sines[0].tolist() == [0] * 8
    stretched = np.empty_like(cosines)
    rotary_tables(10_000.0, np.array([4.0] * 8), stretched, sines)
    assert np.array_equal(stretched[0:300:4], cosines[0:75])


PINNED = {
    "exp32": "4376d765402822b6",
    "exp64": "7ca1a1b7108a2365",
    "log64": "a1a3f3e652d6b18f",
    "sine": "64ff418d7cbcf9a5",
    "cosine": "789344a64d59c3b2",
}
