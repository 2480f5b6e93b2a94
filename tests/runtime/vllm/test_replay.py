"""What vLLM returns of a row is enough: the same choice and the same scores as from all logits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine import RequestError, SamplingRule
from runtime.replay import REPLAY_COLUMNS, replay_rows
from runtime.sampling import LOGPROB_LOWEST, MARGIN_CLIP, rule_array, sample_rows
from runtime.vllm_engine.replay import choose_rows, greatest_needed, replay_returned
from runtime.vllm_engine.rules import NO_TOKEN, RULE_ARGUMENT, RULE_WORDS, read_rule, rule_words

VOCABULARY = 700
RULES = st.builds(
    SamplingRule,
    temperature_milli=st.sampled_from([0, 1, 300, 800, 1200, 5000]),
    top_k=st.sampled_from([0, 1, 5, 64]),
    top_p_milli=st.sampled_from([0, 1, 500, 900, 1000]),
    max_output_tokens=st.just(16),
    logprob_ceiling_milli=st.sampled_from([0, 0, 500, 3000]),
    min_tokens=st.sampled_from([0, 2, 16]),
)
ENDS = (3, 17)
PLAIN = rule_array(SamplingRule(800, 0, 0, 16), bytes(32))
SEEDS = st.binary(min_size=32, max_size=32)


def rows_of(seed: int, rows: int = 3, levels: int | None = None) -> np.ndarray:
    """Random logits; with few levels, many of them equal."""
    logits = np.random.default_rng(seed).standard_normal((rows, VOCABULARY)) * 3
    if levels is not None:
        logits = np.round(logits * levels) / levels
    return logits.astype(np.float32)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """As vLLM takes it: rounded to float32 at the end."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    values: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return values.astype(np.float32)


def returned(
    logprobs: np.ndarray, claimed: np.ndarray, rule: np.ndarray = PLAIN
) -> tuple[np.ndarray, np.ndarray]:
    """What vLLM returns of each row."""
    order = np.argsort(-logprobs, axis=1, kind="stable")[:, : greatest_needed(rule, VOCABULARY)]
    ids = np.concatenate([claimed[:, None], order], axis=1).astype(np.int64)
    return ids, np.take_along_axis(logprobs, ids, axis=1)


def both(
    logprobs: np.ndarray, claimed: np.ndarray, rule: SamplingRule, seed: bytes
) -> tuple[np.ndarray, np.ndarray]:
    """(from the whole rows, from what vLLM returns), as `replay_rows` gives them."""
    whole = np.zeros((len(claimed), REPLAY_COLUMNS), np.int64)
    few = np.zeros((len(claimed), REPLAY_COLUMNS), np.int64)
    words = rule_array(rule, seed, ENDS)
    replay_rows(logprobs, 0, words, claimed, whole)
    replay_returned(*returned(logprobs, claimed, words), 0, words, few)
    return whole, few


@given(rule=RULES, seed=SEEDS, rows=st.integers(0, 1000), claimed=st.integers(0, VOCABULARY - 1))
def test_scores_from_the_returned_part_are_those_from_the_whole_row(
    rule: SamplingRule, seed: bytes, rows: int, claimed: int
) -> None:
    logits = rows_of(rows)
    logits[:2, ENDS[0]] += 12
    logprobs = log_softmax(logits)
    likely = int(np.argmax(logprobs[1]))
    claims = np.array([claimed, likely, int(np.argsort(logprobs[2])[-40])], np.int64)
    whole, few = both(logprobs, claims, rule, seed)
    assert np.array_equal(whole[:, (0, 4)], few[:, (0, 4)])
    # The float32 rows sum to 1 but for rounding, which the whole row's own sum takes out again. It
    # moves the ceiling, so at temperature 0.001 also scores, by a thousand times as much.
    slack = 2000 if rule.logprob_ceiling_milli and rule.temperature_milli == 1 else 8
    apart = np.abs(whole[:, 1] - few[:, 1])
    assert apart.max() <= (slack if rule.logprob_ceiling_milli else 0)
    assert np.abs(whole[:, 2:4] - few[:, 2:4]).max() <= 2


@given(rule=RULES, seed=SEEDS, rows=st.integers(0, 1000))
def test_equal_logits_are_ordered_by_id_whatever_order_vllm_returns(
    rule: SamplingRule, seed: bytes, rows: int
) -> None:
    logprobs = log_softmax(rows_of(rows, levels=2))
    claims = logprobs.argmax(axis=1)
    words = rule_array(rule, seed, ENDS)
    ids, values = returned(logprobs, claims, words)
    shuffled = ids.copy()
    for row in range(len(ids)):
        greatest = ids.shape[1] - 1
        keys = [(-values[row, 1 + i], -ids[row, 1 + i]) for i in range(greatest)]
        order = sorted(range(greatest), key=keys.__getitem__)
        shuffled[row, 1:] = ids[row, 1:][order]
    straight = np.zeros((3, REPLAY_COLUMNS), np.int64)
    other = np.zeros((3, REPLAY_COLUMNS), np.int64)
    replay_returned(ids, values, 0, words, straight)
    replay_returned(shuffled, values, 0, words, other)
    assert np.array_equal(straight, other)


def test_a_claimed_token_that_ties_with_the_last_candidate_counts_as_one() -> None:
    logprobs = np.full((1, VOCABULARY), -9.0, np.float32)
    logprobs[0, :10] = -2.0
    claimed = np.array([VOCABULARY - 1], np.int64)
    out = np.zeros((1, REPLAY_COLUMNS), np.int64)
    replay_returned(*returned(logprobs, claimed), 0, PLAIN, out)
    assert out[0, 4] == 1


def test_an_end_token_that_min_tokens_forbids_is_no_candidate_however_likely_it_is() -> None:
    logits = rows_of(1, rows=2)
    logits[:, ENDS] += 20
    rule = rule_array(SamplingRule(800, 0, 0, 16, (), 0, 1), bytes(32), ENDS)
    claimed = np.full(2, ENDS[0], np.int64)
    out = np.zeros((2, REPLAY_COLUMNS), np.int64)
    replay_returned(*returned(log_softmax(logits), claimed, rule), 0, rule, out)
    assert out[0, 0] not in ENDS and out[1, 0] in ENDS
    assert out[0, 1] == MARGIN_CLIP and out[1, 1] < MARGIN_CLIP
    assert out[:, 4].tolist() == [0, 1]


def test_a_log_probability_of_minus_infinity_is_the_lowest_there_is() -> None:
    logprobs = log_softmax(rows_of(4, rows=1))
    claimed = np.array([int(logprobs[0].argmin())], np.int64)
    ids, values = returned(logprobs, claimed)
    values[0, 0] = -np.inf
    out = np.zeros((1, REPLAY_COLUMNS), np.int64)
    replay_returned(ids, values, 0, PLAIN, out)
    assert out[0, 2] == LOGPROB_LOWEST
    assert out[0, 4] == 0


@given(
    rule=RULES,
    seed=SEEDS,
    rows=st.integers(0, 1000),
    levels=st.sampled_from([None, 4]),
    position=st.sampled_from([0, 1, 2, 15, 16, 5000]),
)
def test_rows_of_a_batch_get_the_tokens_of_the_rule(
    rule: SamplingRule, seed: bytes, rows: int, levels: int | None, position: int
) -> None:
    logits = rows_of(rows, levels=levels)
    expected, logprobs = np.empty(1, np.int64), np.empty(1, np.int64)
    chosen = np.empty(2, np.int64)
    logits[0, ENDS] += 9
    rules = np.array([read(rule, seed)] * 2, np.int64)
    places = np.array([position, position + 3], np.int64)
    choose_rows(logits, np.array([2, 0], np.int64), places, rules, chosen)
    for index, row in enumerate((2, 0)):
        sample_rows(
            logits[row : row + 1],
            int(places[index]),
            rule_array(rule, seed, ENDS),
            expected,
            logprobs,
        )
        assert chosen[index] == expected[0]


def read(rule: SamplingRule, seed: bytes) -> list[int]:
    """What a processor gets."""
    words = read_rule({RULE_ARGUMENT: rule_words(rule, seed, ENDS), "other": 1})
    assert words is not None
    return words


@given(rule=RULES, seed=SEEDS)
def test_a_rule_survives_its_way_through_vllm(rule: SamplingRule, seed: bytes) -> None:
    words = read(rule, seed)
    assert len(words) == RULE_WORDS
    assert words[:3] == [rule.temperature_milli, rule.top_k, rule.top_p_milli]
    assert b"".join(word.to_bytes(4, "little") for word in words[3:7]) == seed[:16]
    assert words[7:9] == [rule.logprob_ceiling_milli, rule.min_tokens]
    ends = list(ENDS) if rule.min_tokens else []
    assert words[9:] == ends + [NO_TOKEN] * (RULE_WORDS - 9 - len(ends))


def test_a_request_without_a_rule_is_left_to_vllm() -> None:
    assert read_rule(None) is None
    assert read_rule({"other": 1}) is None


@pytest.mark.parametrize(
    "words",
    [
        [0] * 6,
        [0] * 8,
        [0] * (RULE_WORDS + 1),
        [*[0] * 7, 20_001, 0],
        [*[0] * 7, 0, 65_537],
        [-1, *[0] * (RULE_WORDS - 1)],
        [5001, *[0] * (RULE_WORDS - 1)],
        [*[0] * (RULE_WORDS - 1), 1 << 32],
        [True, *[0] * (RULE_WORDS - 1)],
        [0.8, *[0] * (RULE_WORDS - 1)],
        "0800000",
    ],
)
def test_words_that_are_no_rule_are_refused(words: object) -> None:
    with pytest.raises(ValueError, match=RULE_ARGUMENT):
        read_rule({RULE_ARGUMENT: words})


def test_a_bad_rule_never_gets_so_far() -> None:
    with pytest.raises(RequestError):
        SamplingRule(5001, 0, 0, 1)
