"""Elections: who is in the next set, and by how much one set may differ from the one before."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from chain.execution.election import elect
from chain.parameters import Parameters
from consensus.values import Validator, ValidatorSet
from tests.chain.ledger_world import account

THIRD = Parameters(validators_max=8)
STAKES = st.dictionaries(st.integers(0, 11), st.integers(1, 1_000), min_size=1, max_size=12)


def validator(index: int, stake: int) -> Validator:
    return Validator(
        index, account(f"sign {index}"), account(f"vrf {index}"), account(f"a {index}"), stake
    )


def a_set(stakes: dict[int, int], epoch: int = 4) -> ValidatorSet:
    return ValidatorSet(epoch, tuple(validator(index, stakes[index]) for index in sorted(stakes)))


def next_set(
    before: ValidatorSet,
    stakes: dict[int, int],
    convicted: frozenset[int] = frozenset(),
    parameters: Parameters = THIRD,
) -> ValidatorSet:
    """With candidates of these stakes; whoever is a member and no candidate wants to leave."""
    known = before.by_index | {index: validator(index, stake) for index, stake in stakes.items()}
    return elect(known, stakes.keys(), convicted, before, parameters)


def stakes_of(elected: ValidatorSet) -> dict[int, int]:
    return {member.index: member.stake for member in elected.members}


def test_a_set_that_nobody_joins_or_leaves_stays_as_it_is() -> None:
    before = a_set({0: 100, 3: 50, 7: 100})
    assert next_set(before, stakes_of(before)) == replace(before, epoch=5)


def test_four_of_equal_stake_are_replaced_by_four_others_in_three_epochs() -> None:
    old, new = dict.fromkeys(range(4), 10**9), dict.fromkeys(range(4, 8), 10**9)
    current = a_set(old)
    for _ in range(3):
        assert set(current.ids) & set(old)
        current = next_set(current, new)
    assert stakes_of(current) == new


def test_the_most_stake_is_elected_and_of_equals_the_lower_id() -> None:
    before = a_set({0: 900})
    elected = next_set(
        before, {0: 900, 5: 10, 6: 30, 7: 10}, parameters=Parameters(validators_max=3)
    )
    assert stakes_of(elected) == {0: 900, 5: 10, 6: 30}


def test_who_is_convicted_goes_at_once_whatever_it_weighs() -> None:
    before = a_set({0: 600, 1: 200, 2: 200})
    elected = next_set(before, {1: 200, 2: 200, 0: 300}, frozenset({0}))
    assert stakes_of(elected) == {1: 200, 2: 200}


def test_a_set_that_is_convicted_as_a_whole_goes_on() -> None:
    before = a_set({0: 600, 1: 200})
    assert stakes_of(next_set(before, {9: 500}, frozenset({0, 1}))) == {0: 600, 1: 200}


def test_a_set_that_everybody_wants_to_leave_is_never_empty() -> None:
    current = a_set({0: 600, 1: 200})
    for _ in range(40):
        current = next_set(current, {})
    assert current.stake_total >= 1


def test_keys_are_those_of_the_registration_and_not_of_the_set_before() -> None:
    before = a_set({0: 100})
    rotated = replace(before.members[0], signing_key=account("another"))
    elected = elect({0: rotated}, {0}, frozenset(), before, THIRD)
    assert elected.members == (rotated,)


@given(before=STAKES, wanted=STAKES, convicted=st.frozensets(st.integers(0, 11), max_size=3))
def test_at_most_a_third_of_the_stake_goes_or_comes_but_for_the_convicted(
    before: dict[int, int], wanted: dict[int, int], convicted: frozenset[int]
) -> None:
    old = a_set(before)
    elected = next_set(old, wanted, convicted)
    after = stakes_of(elected)
    if convicted >= before.keys():
        assert after == before
        return
    goes = sum(
        max(0, stake - after.get(index, 0))
        for index, stake in before.items()
        if index not in convicted
    )
    comes = sum(max(0, stake - before.get(index, 0)) for index, stake in after.items())
    bound = -(-old.stake_total * THIRD.churn_max_bps // 10_000)
    assert goes <= bound
    assert comes <= bound
    assert not after.keys() & convicted
    assert all(
        after[index] <= max(before.get(index, 0), wanted.get(index, 0)) for index in after
    ), "nobody weighs more than it has or had"


@given(before=STAKES, wanted=STAKES)
def test_what_is_wanted_is_reached(before: dict[int, int], wanted: dict[int, int]) -> None:
    current = a_set(before)
    for _ in range(60):
        current = next_set(current, wanted)
    ranked = sorted(wanted, key=lambda index: (-wanted[index], index))[: THIRD.validators_max]
    assert stakes_of(current) == {index: wanted[index] for index in sorted(ranked)}
