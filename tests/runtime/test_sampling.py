import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.philox import philox_words
from runtime.sampling import (
    CANDIDATES,
    LOGPROB_LOWEST,
    LOGPROB_UNITS_PER_NAT,
    MARGIN_CLIP,
    replay_rows,
    sample_rows,
    seed_words,
)

SEED = bytes(range(100, 132))


def sample(
    logits: np.ndarray,
    seed: bytes = SEED,
    position: int = 0,
    temperature_milli: int = 1000,
    top_k: int = 0,
    top_p_milli: int = 0,
) -> tuple[int, int]:
    token_ids, logprobs = np.empty(1, np.int64), np.empty(1, np.int64)
    row = np.ascontiguousarray(logits, np.float32).reshape(1, -1)
    sample_rows(
        row, position, seed_words(seed), temperature_milli, top_k, top_p_milli, token_ids, logprobs
    )
    return int(token_ids[0]), int(logprobs[0])


def replay(
    logits: np.ndarray, claimed: int, temperature_milli: int = 1000, top_k: int = 0
) -> dict[str, int]:
    out = np.zeros((1, 5), np.int64)
    row = np.ascontiguousarray(logits, np.float32).reshape(1, -1)
    replay_rows(
        row, 3, seed_words(SEED), temperature_milli, top_k, 0, np.array([claimed], np.int64), out
    )
    names = ("token", "margin", "own", "runner_up", "candidate")
    return dict(zip(names, out[0].tolist(), strict=True))


def random_logits(seed: int, size: int = 500) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * 3).astype(np.float32)


def noise_by_the_book(token: int, position: int, seed: bytes) -> float:
    words = np.frombuffer(seed[:16], "<u4").astype(np.uint64)
    out = np.empty(4, np.uint64)
    philox_words(words[:2], np.array([token, position, words[2], words[3]], np.uint64), out)
    numerator = 2 * ((int(out[0]) << 20) + (int(out[1]) >> 12)) + 1
    return -math.log(-math.log(numerator / 2**53))


def choose_by_the_book(
    logits: np.ndarray, seed: bytes, position: int, milli: int, top_k: int, top_p_milli: int
) -> int:
    """The rule as its docstring words it, with the C library's functions."""
    order = sorted(range(len(logits)), key=lambda token: (-float(logits[token]), token))
    survivors = order[:CANDIDATES][: top_k or CANDIDATES]
    scaled = {token: float(logits[token]) * (1000 / milli) for token in survivors}
    weights = [math.exp(scaled[token] - scaled[survivors[0]]) for token in survivors]
    kept: list[int] = []
    before = 0.0
    for token, weight in zip(survivors, weights, strict=True):
        if not kept or before * 1000 < sum(weights) * (top_p_milli or 1000):
            kept.append(token)
        before += weight
    return max(kept, key=lambda token: scaled[token] + noise_by_the_book(token, position, seed))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 5000),
    st.integers(1, 3000),
    st.integers(0, 64),
    st.integers(0, 999),
    st.sampled_from([3, 40, 64, 65, 500]),
)
def test_the_kernel_follows_the_rule_as_written(
    numbers: int, seed: bytes, position: int, milli: int, top_k: int, top_p: int, size: int
) -> None:
    logits = random_logits(numbers, size)
    token, _ = sample(logits, seed, position, milli, top_k, top_p)
    assert token == choose_by_the_book(logits, seed, position, milli, top_k, top_p)


def test_temperature_zero_takes_the_greatest_logit_and_of_equal_ones_the_lower_id() -> None:
    logits = np.zeros(200, np.float32)
    logits[[150, 90, 91]] = 5
    assert sample(logits, temperature_milli=0)[0] == 90


def test_candidates_of_equal_logits_are_those_of_lower_id() -> None:
    """With 200 equal logits, only ids 0 to 63 can be drawn."""
    drawn = {sample(np.zeros(200), position=position)[0] for position in range(2000)}
    assert drawn == set(range(CANDIDATES))


def test_top_k_one_and_a_tiny_top_p_are_greedy() -> None:
    logits = random_logits(5)
    best = int(np.argmax(logits))
    for position in range(50):
        assert sample(logits, position=position, top_k=1)[0] == best
        assert sample(logits, position=position, top_p_milli=1)[0] == best


def test_samples_follow_the_softmax_of_the_scaled_logits() -> None:
    logits = np.array([2.0, 1.0, 0.0, -1.0])
    draws = 40_000
    counts = Counter(
        sample(logits, position=position, temperature_milli=800)[0] for position in range(draws)
    )
    weights = np.exp(logits / 0.8)
    expected = draws * weights / weights.sum()
    chi_square = sum(
        (counts[token] - mean) ** 2 / mean for token, mean in enumerate(expected.tolist())
    )
    assert chi_square < 16.27  # 3 degrees of freedom, one in a thousand


def test_noise_depends_on_the_first_sixteen_seed_bytes_and_the_position_only() -> None:
    logits = np.zeros(64)

    def first_tokens(seed: bytes) -> list[int]:
        return [sample(logits, seed, position)[0] for position in range(20)]

    same = first_tokens(SEED)
    assert first_tokens(SEED[:16] + bytes(16)) == same
    for byte in range(16):
        changed = bytearray(SEED)
        changed[byte] ^= 1
        assert first_tokens(bytes(changed)) != same
    assert len(set(same)) > 10


def test_logprob_is_the_rounded_log_softmax_over_the_whole_vocabulary() -> None:
    logits = random_logits(1, 3000)
    token, logprob = sample(logits, temperature_milli=300)
    exact = logits.astype(np.float64)
    expected = exact[token] - exact.max() - math.log(np.exp(exact - exact.max()).sum())
    assert abs(logprob - expected * LOGPROB_UNITS_PER_NAT) <= 0.51
    assert replay(logits, token)["own"] == logprob


def test_logprobs_stay_within_32_bits_and_at_most_zero() -> None:
    assert sample(np.array([0.0]), temperature_milli=0) == (0, 0)
    assert sample(np.array([1000.0, -1000.0]), temperature_milli=0) == (0, 0)
    low = replay(np.array([1e30, -1e30]), 1, temperature_milli=0)
    assert low["own"] == LOGPROB_LOWEST and low["margin"] == MARGIN_CLIP


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 3000), st.integers(0, 64))
def test_the_token_of_the_rule_has_margin_zero_and_others_do_not(
    numbers: int, milli: int, top_k: int
) -> None:
    logits = random_logits(numbers)
    token = replay(logits, 0, milli, top_k)["token"]
    assert replay(logits, token, milli, top_k)["margin"] == 0
    other = replay(logits, (token + 1) % 500, milli, top_k)
    assert other["token"] == token and other["margin"] > 0


def test_a_token_that_just_missed_top_k_costs_next_to_nothing_more() -> None:
    logits = np.zeros(100, np.float32)
    logits[:10] = np.linspace(5, 4, 10)
    logits[10] = logits[9] - 2.0**-18
    edge = replay(logits, 10, top_k=10)
    inside = replay(logits, 10, top_k=11)
    assert 0 <= edge["margin"] - max(inside["margin"], 0) <= 2 * LOGPROB_UNITS_PER_NAT
    far = replay(logits, 50, top_k=10)
    assert far["margin"] >= edge["margin"]


def test_runner_up_is_the_best_token_other_than_the_claimed_one() -> None:
    logits = np.array([1.0, 3.0, 2.0, 3.0])
    assert replay(logits, 1)["runner_up"] == replay(logits, 3)["own"]
    assert replay(logits, 3)["runner_up"] == replay(logits, 1)["own"]
    assert replay(logits, 0)["runner_up"] == replay(logits, 1)["own"]


@pytest.mark.parametrize(("token", "expected"), [(63, 1), (64, 0)])
def test_only_the_sixty_four_greatest_are_candidates(token: int, expected: int) -> None:
    assert replay(np.arange(200, 0, -1.0), token)["candidate"] == expected
