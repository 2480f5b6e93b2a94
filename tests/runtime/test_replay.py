"""How far a claimed token is from the rule's, at the edges above all."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.engine import SamplingRule
from runtime.replay import REPLAY_COLUMNS, replay_rows
from runtime.sampling import (
    CANDIDATES,
    LOGPROB_LOWEST,
    LOGPROB_UNITS_PER_NAT,
    MARGIN_CLIP,
    rule_array,
    sample_rows,
)
from tests.runtime.test_sampling import noise_by_the_book

SEED = bytes(range(100, 132))
PLAIN = SamplingRule(1000, 0, 0, 4096)
ENDS = (0, 2)
RULES = st.builds(
    SamplingRule,
    temperature_milli=st.sampled_from([300, 800, 1000, 1200, 3000]),
    top_k=st.sampled_from([0, 0, 1, 3, 20, 63, 64]),
    top_p_milli=st.sampled_from([0, 1, 300, 500, 800, 900, 990, 999]),
    max_output_tokens=st.just(4096),
    logprob_ceiling_milli=st.sampled_from([0, 0, 200, 1500, 4000]),
    min_tokens=st.sampled_from([0, 2000]),
)
SEEDS = st.binary(min_size=32, max_size=32)


def token_of(logits: np.ndarray, rule: SamplingRule, seed: bytes = SEED, position: int = 3) -> int:
    token_ids, logprobs = np.empty(1, np.int64), np.empty(1, np.int64)
    row = np.ascontiguousarray(logits, np.float32).reshape(1, -1)
    sample_rows(row, position, rule_array(rule, seed, ENDS), token_ids, logprobs)
    return int(token_ids[0])


def replay(
    logits: np.ndarray,
    claimed: int,
    rule: SamplingRule = PLAIN,
    seed: bytes = SEED,
    position: int = 3,
) -> dict[str, int]:
    out = np.zeros((1, REPLAY_COLUMNS), np.int64)
    row = np.ascontiguousarray(logits, np.float32).reshape(1, -1)
    claims = np.array([claimed], np.int64)
    replay_rows(row, position, rule_array(rule, seed, ENDS), claims, out)
    names = ("token", "margin", "own", "runner_up", "candidate")
    return dict(zip(names, out[0].tolist(), strict=True))


def nats(margin: int) -> float:
    return margin / LOGPROB_UNITS_PER_NAT


def random_logits(seed: int, size: int = 500, levels: int | None = None) -> np.ndarray:
    """With few levels, many are equal."""
    logits = np.random.default_rng(seed).standard_normal(size) * 3
    if levels is not None:
        logits = np.round(logits * levels) / levels
    return logits.astype(np.float32)


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    shifted = wide - wide.max()
    values: np.ndarray = shifted - np.log(np.exp(shifted).sum())
    return values


def margin_by_the_book(
    logits: np.ndarray, claimed: int, rule: SamplingRule, seed: bytes, position: int
) -> float:
    """The protocol's text, taken literally; the costs of every n and every rival, one by one."""
    raw = log_probabilities(logits)
    ceiling = -rule.logprob_ceiling_milli / 1000 if rule.logprob_ceiling_milli else math.inf
    scale = 1000 / rule.temperature_milli
    order = sorted(range(len(logits)), key=lambda token: (-float(logits[token]), token))
    if position < rule.min_tokens:
        order = [token for token in order if token not in ENDS]
    order = order[: CANDIDATES + 1]
    kept = min(rule.top_k or CANDIDATES, CANDIDATES, len(order))
    b = {token: raw[token] * scale for token in {*order, claimed}}
    a = {token: min(raw[token], ceiling) * scale for token in b}
    score = {token: a[token] + noise_by_the_book(token, position, seed) for token in b}
    weights = [math.exp(a[token] - a[order[0]]) for token in order[:kept]]
    p = (rule.top_p_milli or 1000) / 1000
    own_n = next(
        (n for n in range(1, kept) if not math.fsum(weights[:n]) < p * math.fsum(weights)), kept
    )

    def lacking(n: int) -> float:
        inside, rest = math.fsum(weights[:n]), math.fsum(weights[n:])
        return math.log(inside / rest) - math.log(p / (1 - p)) if rest else math.inf

    found = math.inf
    for n in range(1, kept + 1):
        if n == own_n:
            costs = [0.0]
        elif p == 1:
            continue
        else:
            costs = [lacking(n - 1) if n > own_n else -lacking(n)]
        if claimed not in order[:n]:
            costs.append(b[order[n - 1]] - b[claimed])
        beyond = b[order[n]] if n < len(order) else -math.inf
        for rival in order[:n]:
            ahead = score[rival] - score[claimed]
            if ahead > 0:
                costs.append(min(ahead, b[rival] - beyond))
        found = min(found, max(costs))
    return found


@settings(max_examples=150, deadline=None)
@given(
    rule=RULES,
    seed=SEEDS,
    numbers=st.integers(0, 10**6),
    size=st.sampled_from([5, 40, 65, 66, 300]),
    position=st.integers(0, 4000),
    rank=st.integers(0, 299),
)
def test_the_margin_is_the_one_of_the_protocols_text(
    rule: SamplingRule, seed: bytes, numbers: int, size: int, position: int, rank: int
) -> None:
    logits = random_logits(numbers, size)
    claimed = int(np.argsort(-logits)[rank % size])
    forbidden = position < rule.min_tokens and claimed in ENDS
    expected = MARGIN_CLIP
    if not forbidden:
        book = margin_by_the_book(logits, claimed, rule, seed, position)
        expected = round(min(book * LOGPROB_UNITS_PER_NAT, MARGIN_CLIP))
    assert abs(replay(logits, claimed, rule, seed, position)["margin"] - expected) <= 1


@settings(max_examples=400, deadline=None)
@given(
    rule=RULES,
    seed=SEEDS,
    numbers=st.integers(0, 10**6),
    size=st.sampled_from([3, 10, 70, 200]),
    levels=st.sampled_from([None, 1, 4]),
    unlike=st.sampled_from([1e-5, 1e-3, 0.03, 0.3]),
    position=st.integers(0, 4000),
)
def test_no_honest_engine_has_a_margin_above_twice_what_logits_differ(
    rule: SamplingRule,
    seed: bytes,
    numbers: int,
    size: int,
    levels: int | None,
    unlike: float,
    position: int,
) -> None:
    """Whatever the edge: ties, top_k, top_p, the ceiling, the 64 candidates."""
    source = np.random.default_rng(numbers)
    model = random_logits(numbers, size, levels)
    theirs = model + source.uniform(-unlike, unlike, size).astype(np.float32)
    own = model + source.uniform(-unlike, unlike, size).astype(np.float32)
    difference = float(np.abs(log_probabilities(theirs) - log_probabilities(own)).max())
    if not rule.logprob_ceiling_milli:
        # Without a ceiling a constant does not matter, so the best one may be taken.
        apart = theirs.astype(np.float64) - own
        difference = float(apart.max() - apart.min()) / 2
    claimed = token_of(theirs, rule, seed, position)
    scale = 1000 / rule.temperature_milli
    margin = replay(own, claimed, rule, seed, position)["margin"]
    assert margin <= (2 * difference * scale + 1e-9) * LOGPROB_UNITS_PER_NAT + 1


@settings(max_examples=60, deadline=None)
@given(
    rule=RULES,
    seed=SEEDS,
    numbers=st.integers(0, 10**6),
    milli=st.sampled_from([0, 1000]),
    position=st.integers(0, 4000),
)
def test_the_token_of_the_rule_has_margin_zero_and_others_do_not(
    rule: SamplingRule, seed: bytes, numbers: int, milli: int, position: int
) -> None:
    logits = random_logits(numbers)
    rule = replace(rule, temperature_milli=milli)
    token = token_of(logits, rule, seed, position)
    told = replay(logits, token, rule, seed, position)
    assert (told["token"], told["margin"], told["candidate"]) == (token, 0, 1)
    if rule.logprob_ceiling_milli == 0:
        other = replay(logits, (token + 1) % 500, rule, seed, position)
        assert other["token"] == token and other["margin"] > 0


def position_at_which(first: int, others: list[int], least: float) -> int:
    """An output position whose noise puts a token ahead of others by at least so much."""
    for position in range(100_000):
        lead = min(
            noise_by_the_book(first, position, SEED) - noise_by_the_book(other, position, SEED)
            for other in others
        )
        if lead > least:
            return position
    raise AssertionError("no such position")


NUCLEUS = replace(PLAIN, top_p_milli=800)
EDGE = 0.0005


def three_tokens(second_share: float) -> np.ndarray:
    """Tokens 1, 3 and 4 of probabilities 0.5, this, and the rest."""
    logits = np.full(5, -40.0)
    logits[[1, 3, 4]] = np.log([0.5, second_share, 0.5 - second_share])
    return logits


def test_a_token_that_survived_top_p_by_a_hair_elsewhere_costs_a_hair() -> None:
    """0.8 of probability lie before token 4, so it is at the edge, 0.4 nats behind the next."""
    position = position_at_which(4, [1, 3], 2.0)
    provider, verifier = three_tokens(0.3 - EDGE), three_tokens(0.3 + EDGE)
    assert token_of(provider, NUCLEUS, position=position) == 4
    told = replay(verifier, 4, NUCLEUS, position=position)
    assert told["token"] != 4
    apart = math.log((0.8 + EDGE) / (0.2 - EDGE)) - math.log(4)
    assert abs(nats(told["margin"]) - apart) < 1e-5
    assert nats(told["margin"]) < 0.01


def test_a_rival_that_top_p_took_out_by_a_hair_elsewhere_costs_a_hair() -> None:
    position = position_at_which(4, [1, 3], 2.0)
    provider, verifier = three_tokens(0.3 + EDGE), three_tokens(0.3 - EDGE)
    claimed = token_of(provider, NUCLEUS, position=position)
    told = replay(verifier, claimed, NUCLEUS, position=position)
    assert claimed != 4 and told["token"] == 4
    assert 0 < nats(told["margin"]) < 0.01


def test_a_token_clearly_outside_top_p_costs_the_log_odds_it_lacks() -> None:
    position = position_at_which(4, [1, 3], 2.0)
    told = replay(three_tokens(0.4), 4, NUCLEUS, position=position)
    assert abs(nats(told["margin"]) - (math.log(0.9 / 0.1) - math.log(0.8 / 0.2))) < 1e-5


def test_a_token_that_is_outside_by_its_rank_alone_costs_what_it_lacks_to_the_last() -> None:
    """Nearly equal tokens change places sooner than the edge moves."""
    position = position_at_which(4, [1, 3], 2.0)
    told = replay(three_tokens(0.2505), 4, replace(NUCLEUS, top_p_milli=600), position=position)
    assert abs(nats(told["margin"]) - math.log(0.2505 / 0.2495)) < 1e-5


@pytest.mark.parametrize("ceiling", [0, 2000])
def test_a_token_that_just_missed_top_k_costs_what_it_lacks_whatever_the_ceiling(
    ceiling: int,
) -> None:
    logits = np.full(100, -5.0)
    logits[10:20] = np.linspace(1.0, 0.1, 10)
    logits[20] = 0.0
    position = position_at_which(20, list(range(10, 20)), 1.5)
    rule = replace(PLAIN, top_k=10, logprob_ceiling_milli=ceiling)
    told = replay(logits, 20, rule, position=position)
    assert abs(nats(told["margin"]) - 0.1) < 1e-5


def test_the_sixty_fifth_token_is_at_an_edge_like_that_of_top_k() -> None:
    logits = np.full(200, -5.0)
    logits[10:74] = 1.0
    logits[80] = 1.0 - 0.01
    rivals = list(range(10, 74))
    position = position_at_which(80, rivals, 0.2)
    outside = replay(logits, 80, position=position)
    assert outside["candidate"] == 0 and abs(nats(outside["margin"]) - 0.01) < 1e-5
    logits[80] = 1.0 + 0.01
    missing = replay(logits, 10, position=position)
    assert missing["token"] == 80 and missing["candidate"] == 1


def test_the_least_token_of_a_thin_tail_must_pass_its_rivals_in_score_all_the_same() -> None:
    """The edge may lie anywhere in such a tail, but it takes out the likelier tokens last."""
    logits = np.full(60, -40.0)
    logits[1] = math.log(0.9)
    logits[10:60] = np.linspace(math.log(0.004), math.log(0.001), 50)
    rule = replace(PLAIN, top_p_milli=900)
    told = replay(logits, 59, rule, position=position_at_which(30, [1, 59], 9.0))
    assert nats(told["margin"]) > 1.0
    ahead = position_at_which(59, [1, *range(10, 59)], 0.0)
    assert nats(replay(logits, 59, rule, position=ahead)["margin"]) < 1.0


def test_a_token_that_min_tokens_forbids_counts_the_clip_and_is_no_candidate() -> None:
    logits = np.array([9.0, 1.0, 2.0])
    for milli in (0, 1000):
        rule = replace(PLAIN, min_tokens=4, temperature_milli=milli)
        told = replay(logits, 0, rule, position=3)
        assert (told["token"] in (0, 2), told["margin"], told["candidate"]) == (
            False,
            MARGIN_CLIP,
            0,
        )
        assert told["own"] == replay(logits, 0)["own"]
    assert replay(logits, 0, replace(rule, temperature_milli=0), position=4)["margin"] == 0


def test_own_log_probabilities_are_those_of_sampling_and_within_32_bits() -> None:
    logits = random_logits(1, 3000)
    token_ids, logprobs = np.empty(1, np.int64), np.empty(1, np.int64)
    sample_rows(logits.reshape(1, -1), 3, rule_array(PLAIN, SEED), token_ids, logprobs)
    assert replay(logits, int(token_ids[0]))["own"] == logprobs[0]
    low = replay(np.array([1e30, -1e30]), 1, replace(PLAIN, temperature_milli=0))
    assert low["own"] == LOGPROB_LOWEST and low["margin"] == MARGIN_CLIP


def test_runner_up_is_the_best_token_other_than_the_claimed_one() -> None:
    logits = np.array([1.0, 3.0, 2.0, 3.0])
    assert replay(logits, 1)["runner_up"] == replay(logits, 3)["own"]
    assert replay(logits, 3)["runner_up"] == replay(logits, 1)["own"]
    assert replay(logits, 0)["runner_up"] == replay(logits, 1)["own"]


def test_runner_up_may_be_an_end_token_that_min_tokens_forbids() -> None:
    logits = np.array([3.0, 2.0, 1.0])
    told = replay(logits, 1, replace(PLAIN, min_tokens=9))
    assert told["runner_up"] == replay(logits, 0)["own"]


@pytest.mark.parametrize(("token", "expected"), [(63, 1), (64, 0)])
def test_only_the_sixty_four_greatest_are_candidates(token: int, expected: int) -> None:
    assert replay(np.arange(200, 0, -1.0), token)["candidate"] == expected
