"""Bets over many jobs: what an honest job multiplies wealth by has a mean of at most 1, and no
minority of a committee changes it."""

import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.calibrations import read_pair
from chain.records import Bets, BettingTable
from consensus.bets import (
    LIMIT_LOG,
    NOTHING,
    OPENING_TOKENS,
    Word,
    for_doubt,
    is_opening_possible,
    log_e_value,
    settled,
    word_of,
)
from consensus.values import Scores, Verdict
from runtime.calibration import eprocess
from runtime.calibration.evidence import PrefixScores
from runtime.scoring import OPENING_TOKENS as SCORED_TOKENS

REPORTS = sorted(Path("bench/calibration").glob("*.json"))
UNIT = 1 << 20
SCORES = Scores(64, 0, 9, 900, 9, 900, 0, 40 * UNIT, 5, True, True, 300, 500, 20 * UNIT)
TABLES = st.integers(0, 12).flatmap(
    lambda edges: st.builds(
        BettingTable,
        st.lists(st.integers(0, 1 << 24), min_size=edges, max_size=edges, unique=True).map(
            lambda found: tuple(sorted(found))
        ),
        st.lists(st.integers(-4 * UNIT, 4 * UNIT), min_size=edges + 1, max_size=edges + 1).map(
            tuple
        ),
    )
)


def test_the_chain_bets_as_the_calibration_does() -> None:
    assert LIMIT_LOG == eprocess.LIMIT_LOG
    assert OPENING_TOKENS == SCORED_TOKENS


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 34), TABLES)
def test_a_statistic_falls_into_the_bin_that_the_calibration_means(
    total: int, doubt: int, table: BettingTable
) -> None:
    scores = PrefixScores(32, 0, 0, total, 0, 0, 0, doubt)
    value = eprocess.statistic(scores, eprocess.Kind.MARGIN)
    assert for_doubt(total, doubt) == value
    fitted = eprocess.BettingTable(eprocess.Kind.MARGIN, 32, table.edges, table.log_e_values)
    assert log_e_value(table, value) == fitted.log_e_value(value)


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.stem)
def test_a_pair_bets_by_the_published_tables_under_which_held_out_honest_jobs_did_not_grow(
    report: Path,
) -> None:
    data = json.loads(report.read_text())
    bets = read_pair(report, bytes.fromhex(data["model"])).bets
    (measured,) = [m for m in data["e_process"]["honest"] if m["output_tokens"] == OPENING_TOKENS]
    assert measured["lifetimes_ejected"] == 0
    published = {
        table["kind"]: BettingTable(tuple(table["edges"]), tuple(table["log_e_values"]))
        for table in data["e_process"]["tables"]
        if table["length"] == OPENING_TOKENS
    }
    for kind, table in (("margin", bets.margin), ("distance", bets.distance)):
        grew = measured["kinds"][kind]["mean_e_value"] > 1
        assert table == (BettingTable() if grew else published[kind])


@given(st.data())
def test_wealth_of_honest_scores_is_a_supermartingale_for_any_table_with_honest_means(
    data: st.DataObject,
) -> None:
    """Whatever an honest provider has, its next job multiplies it by at most 1 in the mean."""
    bins = data.draw(st.integers(2, 8))
    weights = data.draw(st.lists(st.integers(1, 1000), min_size=bins, max_size=bins))
    payoffs = data.draw(st.lists(st.integers(1, 1000), min_size=bins, max_size=bins))
    mean = Fraction(sum(w * p for w, p in zip(weights, payoffs, strict=True)), sum(weights))
    logs = tuple(math.floor(math.log(Fraction(p) / mean) * UNIT) for p in payoffs)
    table = BettingTable(tuple(range(bins - 1)), logs)
    shares = np.array(weights) / sum(weights)
    grown = [math.exp(log_e_value(table, value) / UNIT) for value in range(bins)]
    assert float(shares @ np.array(grown)) <= 1 + 1e-9


@given(TABLES, TABLES, st.integers(2, 5), st.lists(st.integers(0, 1 << 24), max_size=4))
def test_no_minority_moves_what_an_exact_majority_says(
    margin: BettingTable, distance: BettingTable, honest: int, lies: list[int]
) -> None:
    tables = Bets(margin, distance)
    truth = word_of(SCORES, tables)
    liars = [
        ("p", Verdict.PASS, word_of(replace(SCORES, opening_margin_sum=lie), tables))
        for lie in lies[: honest - 1]
    ]
    assert settled([*liars, *[("p", Verdict.PASS, truth)] * honest]) == truth


def test_who_abstains_and_an_output_that_is_too_short_add_nothing() -> None:
    tables = Bets(BettingTable((5,), (-100, 100)), BettingTable((5,), (-100, 100)))
    assert word_of(replace(SCORES, positions=31), tables) == NOTHING
    assert settled([("p", Verdict.ABSTAIN, Word(7, 7))]) == NOTHING
    assert settled([]) == NOTHING


def test_of_profiles_with_equally_many_seats_the_least_counts() -> None:
    words = [("a", Verdict.PASS, Word(5, -5)), ("b", Verdict.PASS, Word(-5, 5))]
    assert settled(words) == Word(-5, -5)


def test_an_opening_is_part_of_the_whole() -> None:
    assert is_opening_possible(SCORES)
    assert not is_opening_possible(replace(SCORES, opening_margin_sum=901))
    assert not is_opening_possible(replace(SCORES, opening_distance_sum=901))
    assert not is_opening_possible(replace(SCORES, opening_doubt_sum=33 * UNIT))
