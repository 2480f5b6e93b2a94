import math
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.engine import SamplingRule
from runtime.philox import philox_words
from runtime.sampling import (
    CANDIDATES,
    LOGPROB_UNITS_PER_NAT,
    rule_array,
    sample_rows,
)

SEED = bytes(range(100, 132))
MOST = 4096
PLAIN = SamplingRule(1000, 0, 0, MOST)
RULES = st.builds(
    SamplingRule,
    temperature_milli=st.integers(1, 3000),
    top_k=st.integers(0, 64),
    top_p_milli=st.integers(0, 999),
    max_output_tokens=st.just(MOST),
    logprob_ceiling_milli=st.sampled_from([0, 100, 1500, 4000, 20_000]),
    min_tokens=st.sampled_from([0, 2500]),
)


def sample(
    logits: np.ndarray,
    seed: bytes = SEED,
    position: int = 0,
    end_token_ids: tuple[int, ...] = (),
    **changes: Any,
) -> tuple[int, int]:
    rule = replace(PLAIN, **changes)
    token_ids, logprobs = np.empty(1, np.int64), np.empty(1, np.int64)
    row = np.ascontiguousarray(logits, np.float32).reshape(1, -1)
    sample_rows(row, position, rule_array(rule, seed, end_token_ids), token_ids, logprobs)
    return int(token_ids[0]), int(logprobs[0])


def fields_of(rule: SamplingRule) -> dict[str, Any]:
    values = asdict(rule)
    del values["stop"]
    return values


def random_logits(seed: int, size: int = 500) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * 3).astype(np.float32)


def noise_by_the_book(token: int, position: int, seed: bytes) -> float:
    words = np.frombuffer(seed[:16], "<u4").astype(np.uint64)
    out = np.empty(4, np.uint64)
    philox_words(words[:2], np.array([token, position, words[2], words[3]], np.uint64), out)
    numerator = 2 * ((int(out[0]) << 20) + (int(out[1]) >> 12)) + 1
    return -math.log(-math.log(numerator / 2**53))


def choose_by_the_book(
    logits: np.ndarray, seed: bytes, position: int, rule: SamplingRule, ends: tuple[int, ...]
) -> int:
    """The rule as its docstring words it, with the C library's functions."""
    greatest = float(logits.max())
    normaliser = greatest + math.log(math.fsum(math.exp(float(x) - greatest) for x in logits))
    highest = math.inf
    if rule.logprob_ceiling_milli:
        highest = normaliser - rule.logprob_ceiling_milli / 1000
    order = sorted(range(len(logits)), key=lambda token: (-float(logits[token]), token))
    if position < rule.min_tokens:
        order = [token for token in order if token not in ends]
    survivors = order[:CANDIDATES][: rule.top_k or CANDIDATES]
    scale = 1000 / rule.temperature_milli
    scaled = {token: min(float(logits[token]), highest) * scale for token in survivors}
    weights = [math.exp(scaled[token] - scaled[survivors[0]]) for token in survivors]
    kept: list[int] = []
    before = 0.0
    for token, weight in zip(survivors, weights, strict=True):
        if not kept or before * 1000 < sum(weights) * (rule.top_p_milli or 1000):
            kept.append(token)
        before += weight
    return max(kept, key=lambda token: scaled[token] + noise_by_the_book(token, position, seed))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 5000),
    RULES,
    st.sampled_from([3, 40, 64, 65, 66, 500]),
)
def test_the_kernel_follows_the_rule_as_written(
    numbers: int, seed: bytes, position: int, rule: SamplingRule, size: int
) -> None:
    logits = random_logits(numbers, size)
    ends = (int(np.argmax(logits)), 1) if numbers % 2 else (0, 2)
    token, _ = sample(logits, seed, position, ends, **fields_of(rule))
    assert token == choose_by_the_book(logits, seed, position, rule, ends)


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


def test_the_log_probability_of_a_certain_token_is_zero() -> None:
    assert sample(np.array([0.0]), temperature_milli=0) == (0, 0)
    assert sample(np.array([1000.0, -1000.0]), temperature_milli=0) == (0, 0)


def test_no_end_token_is_drawn_before_min_tokens_however_likely_it_is() -> None:
    logits = np.zeros(100, np.float32)
    logits[[40, 41]] = 30.0
    for milli in (0, 1000):
        drawn = [
            sample(logits, SEED, position, (40, 41), temperature_milli=milli, min_tokens=5)[0]
            for position in range(10)
        ]
        assert not {40, 41} & set(drawn[:5])
        assert {40, 41} >= set(drawn[5:])


def test_what_min_tokens_leaves_out_makes_room_for_the_next_candidate() -> None:
    """With 200 equal logits, of which ids 3 and 7 may not be: the 64 are 0 to 65 without them."""
    drawn = {
        sample(np.zeros(200), position=position, min_tokens=MOST, end_token_ids=(3, 7))[0]
        for position in range(2500)
    }
    assert drawn == set(range(CANDIDATES + 2)) - {3, 7}


def test_min_tokens_leaves_the_raw_log_probability_alone() -> None:
    logits = np.array([9.0, 2.0, 1.0])
    token, logprob = sample(logits, temperature_milli=0, min_tokens=1, end_token_ids=(0,))
    assert token == 1
    assert logprob == sample(logits, temperature_milli=1, top_k=1, position=5)[1] - round(
        7.0 * LOGPROB_UNITS_PER_NAT
    )


def test_a_ceiling_takes_from_the_likeliest_token_what_it_has_above_it() -> None:
    """0.9 counts as 0.3 beside 0.1: three draws of four."""
    logits = np.log([0.9, 0.1])
    ceiling = round(-math.log(0.3) * 1000)
    draws = 20_000
    first = sum(
        sample(logits, position=position, logprob_ceiling_milli=ceiling)[0] == 0
        for position in range(draws)
    )
    assert abs(first - 0.75 * draws) < 4 * math.sqrt(draws * 0.75 * 0.25)


def test_a_ceiling_below_all_candidates_makes_them_equal() -> None:
    logits = np.linspace(3.0, 0.0, 10)
    counts = Counter(
        sample(logits, position=position, logprob_ceiling_milli=20_000)[0]
        for position in range(4000)
    )
    assert all(abs(counts[token] - 400) < 100 for token in range(10))


def test_a_ceiling_means_the_same_whatever_is_added_to_all_logits() -> None:
    logits = np.round(random_logits(3) * 64) / 64  # so that the sum is exact
    rule = fields_of(replace(PLAIN, top_k=20, top_p_milli=900, logprob_ceiling_milli=2000))
    for position in range(100):
        moved = sample(logits + np.float32(8), position=position, **rule)
        assert sample(logits, position=position, **rule) == moved


def test_a_ceiling_is_nothing_to_greedy_sampling() -> None:
    logits = np.log([0.6, 0.4])
    for ceiling in (1, 20_000):
        assert sample(logits, temperature_milli=0, logprob_ceiling_milli=ceiling)[0] == 0
