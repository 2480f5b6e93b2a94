"""Validators join, leave, rotate, are jailed and convicted, by operations and at ends of epochs."""

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.v1 import transactions_pb2 as pb
from chain.execution import Ledger, validators
from chain.parameters import Parameters
from chain.rejections import RejectionReason
from tests.builders import key
from tests.chain.epoch_world import (
    BLOCKS,
    MINIMUM,
    NEWCOMERS,
    Chain,
    double_vote,
    keys_of,
    owner,
    registration,
)
from tests.chain.ledger_world import CHAIN, MODEL, World, a_request, serving


def test_genesis_issues_the_voting_stake_as_the_stake_of_its_accounts() -> None:
    chain = Chain()
    assert chain.ledger.account(owner("v0")).stake == MINIMUM
    assert chain.ledger.supply().issued == chain.money()
    assert chain.weights(0) == chain.weights(1) == dict.fromkeys(range(4), MINIMUM)
    assert chain.ledger.validator_set(2) is None


def test_who_registers_is_in_the_set_of_the_epoch_after_the_next() -> None:
    chain = Chain()
    assert chain.do("new 0", registration("new 0")).accepted
    chain.epochs()
    assert 4 not in chain.weights(1)
    assert chain.weights(2)[4] == MINIMUM
    assert chain.ledger.validators.epoch == 1
    chain.epochs()
    assert chain.ledger.validators.by_index[4].account == owner("new 0")


def test_all_four_are_replaced_over_three_sets_and_those_who_left_get_their_stake_back() -> None:
    chain = Chain()
    for name in NEWCOMERS:
        assert chain.do(name, registration(name)).accepted
    chain.epochs()
    for index in range(4):
        leaving = pb.LeaveValidators(), pb.Unstake(amount=MINIMUM)
        assert chain.do(f"v{index}", *leaving).accepted
    chain.epochs(4)
    assert chain.weights() == dict.fromkeys(range(4, 8), MINIMUM)
    chain.epochs(3)
    assert all(chain.ledger.account(owner(f"v{index}")).unbonding == 0 for index in range(4))
    assert chain.ledger.supply().issued == chain.money()


@pytest.mark.parametrize(
    "keys",
    [
        keys_of("new 0", account="new 1"),
        keys_of("new 0", prover="new 1"),
        keys_of("new 0", signer="new 1"),
        pb.ValidatorKeys(signing_key=key("sign new 0").public_key),
    ],
    ids=["made for another account", "no such vrf key", "no such signing key", "incomplete"],
)
def test_a_registration_without_proof_that_the_keys_are_ones_own_is_refused(
    keys: pb.ValidatorKeys,
) -> None:
    chain = Chain()
    receipt = chain.do("new 0", pb.RegisterValidator(keys=keys, stake=MINIMUM))
    assert receipt.reason == RejectionReason.BAD_VALIDATOR
    assert chain.ledger.account(owner("new 0")).stake == 0


@pytest.mark.parametrize("address", ["", "here", "here:0", "here:99999", "a b:1", "ä:1", "here:٣"])
def test_an_address_that_nobody_can_dial_is_refused(address: str) -> None:
    keys = keys_of("new 0")
    keys.address = address
    receipt = Chain().do("new 0", pb.RegisterValidator(keys=keys, stake=MINIMUM))
    assert receipt.reason == RejectionReason.BAD_VALIDATOR


def test_a_key_that_was_ever_anothers_is_refused() -> None:
    chain = Chain()
    taken = keys_of("v0", account="new 0")
    receipt = chain.do("new 0", pb.RegisterValidator(keys=taken, stake=MINIMUM))
    assert receipt.reason == RejectionReason.BAD_VALIDATOR


def test_a_chain_of_one_epoch_has_the_validators_of_genesis_for_ever() -> None:
    chain = Chain(Parameters())
    assert chain.do("new 0", registration("new 0")).reason == RejectionReason.BAD_VALIDATOR
    assert chain.do("v0", pb.LeaveValidators()).reason == RejectionReason.BAD_VALIDATOR
    chain.epochs(0)
    assert chain.ledger.supply().issued == chain.money()


def test_less_than_the_least_stake_is_refused_and_leaves_nothing_behind() -> None:
    chain = Chain()
    receipt = chain.do("new 0", registration("new 0", MINIMUM - 1))
    assert receipt.reason == RejectionReason.INSUFFICIENT_STAKE
    assert chain.do("new 0", registration("new 0")).accepted


def test_a_validator_cannot_unstake_below_the_least_stake_before_it_leaves() -> None:
    chain = Chain()
    unstake = pb.Unstake(amount=1)
    assert chain.do("v1", unstake).reason == RejectionReason.INSUFFICIENT_STAKE
    assert chain.do("v1", pb.LeaveValidators(), unstake).accepted


def test_more_stake_weighs_more_from_the_epoch_after_the_next() -> None:
    chain = Chain()
    assert chain.do("v1", pb.Stake(amount=500)).accepted
    chain.epochs(2)
    assert chain.weights() == {0: MINIMUM, 1: MINIMUM + 500, 2: MINIMUM, 3: MINIMUM}


def test_rotated_keys_act_from_the_epoch_after_the_next_and_only_once_an_epoch() -> None:
    chain = Chain()
    chain.epochs()
    old, new = key("sign v2").public_key, key("sign fresh").public_key
    keys = keys_of("fresh", account="v2")
    assert chain.do("v2", pb.RotateValidator(keys=keys)).accepted
    again = chain.do("v2", pb.RotateValidator(keys=keys_of("fresher", account="v2")))
    assert again.reason == RejectionReason.TOO_SOON
    chain.epochs()
    assert chain.ledger.validators.by_index[2].signing_key == old
    chain.epochs()
    assert chain.ledger.validators.by_index[2].signing_key == new
    assert chain.ledger.contacts()[0].certificate == b"certificate of fresh"


def test_who_has_left_comes_back_under_its_id() -> None:
    chain = Chain()
    assert chain.do("v3", pb.LeaveValidators()).accepted
    chain.epochs(3)
    assert 3 not in chain.weights()
    assert chain.do("v3", registration("v3", 0)).accepted
    chain.epochs(3)
    assert chain.weights()[3] == MINIMUM


def test_who_comes_back_needs_a_place_like_anybody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validators, "REGISTERED_MAX", 1)
    chain = Chain()
    assert chain.do("new 0", registration("new 0")).accepted
    assert chain.do("new 0", pb.LeaveValidators(), pb.Unstake(amount=MINIMUM)).accepted
    refused = chain.do("new 1", registration("new 1"))
    assert refused.reason == RejectionReason.TOO_MANY_VALIDATORS
    chain.epochs(8)
    assert chain.ledger.contacts() == ()
    assert chain.do("new 1", registration("new 1")).accepted
    back = chain.do("new 0", registration("new 0"))
    assert back.reason == RejectionReason.TOO_MANY_VALIDATORS


def test_a_grain_left_behind_holds_no_place() -> None:
    chain = Chain()
    assert chain.do("new 0", registration("new 0")).accepted
    assert chain.do("new 0", pb.LeaveValidators(), pb.Unstake(amount=MINIMUM - 1)).accepted
    chain.epochs(8)
    assert chain.ledger.account(owner("new 0")).stake == 1
    assert b"certificate of new 0" not in [c.certificate for c in chain.ledger.contacts()]


def test_what_a_leaver_has_unstaked_is_slashed_for_what_it_did_in_its_last_epoch() -> None:
    chain = Chain()
    chain.epochs()
    assert chain.do("v0", pb.LeaveValidators(), pb.Unstake(amount=MINIMUM)).accepted
    chain.epochs(3)
    assert 0 in chain.weights(2)
    assert 0 not in chain.weights(3)
    assert chain.ledger.account(owner("v0")).unbonding == MINIMUM
    assert chain.do("somebody", double_vote(0, "v0", epoch=2)).accepted
    assert chain.ledger.account(owner("v0")).unbonding == MINIMUM // 2


def test_evidence_counts_for_the_epoch_under_way_and_two_before_it() -> None:
    chain = Chain()
    chain.epochs(3)
    late = chain.do("somebody", double_vote(0, "v0", epoch=0))
    assert late.reason == RejectionReason.BAD_EVIDENCE
    assert chain.do("somebody", double_vote(0, "v0", epoch=1)).accepted
    assert chain.ledger.account(owner("v0")).stake == MINIMUM // 2


def test_a_convicted_validator_is_out_for_good() -> None:
    chain = Chain()
    assert chain.do("somebody", double_vote(0, "v0", epoch=0)).accepted
    chain.epochs(2)
    assert 0 not in chain.weights()
    more = pb.Stake(amount=MINIMUM)
    assert chain.do("v0", more, pb.Unjail()).reason == RejectionReason.JAILED
    assert chain.do("v0", pb.LeaveValidators()).accepted
    assert chain.do("v0", registration("v0", MINIMUM)).reason == RejectionReason.BAD_VALIDATOR


def test_who_leads_no_block_is_jailed_until_it_asks_after_the_term() -> None:
    rules = Parameters(
        epoch_blocks=BLOCKS, validator_stake_min=MINIMUM, idle_blocks_min=1, jail_epochs=2
    )
    chain = Chain(rules, idle=frozenset({3}))
    chain.epochs(2)
    assert 3 not in chain.weights()
    assert chain.do("v3", pb.Unjail()).reason == RejectionReason.JAILED
    chain.epochs()
    chain.idle = frozenset()
    assert chain.do("v3", pb.Unjail()).accepted
    chain.epochs(2)
    assert chain.weights()[3] == MINIMUM


def test_a_ledger_made_anew_from_its_rows_goes_on_to_the_same_sets() -> None:
    chain = Chain()
    assert chain.do("new 0", registration("new 0")).accepted
    chain.epochs(2)
    ledger = chain.ledger
    twin = Chain()
    twin.ledger = Ledger.from_records(
        CHAIN, ledger.meta, list(ledger.to_records()), list(ledger.account_chunks())
    )
    twin.salt = chain.salt
    for each in (chain, twin):
        assert each.do("v1", pb.LeaveValidators(), pb.Unstake(amount=MINIMUM)).accepted
        each.epochs(3)
    assert chain.weights() == twin.weights()
    assert ledger.execution_root == twin.ledger.execution_root


def test_who_loses_its_seat_with_the_next_epoch_judges_no_new_job() -> None:
    rules = Parameters(epoch_blocks=20, validator_stake_min=1)
    world = World(parameters=rules)
    world.open_market()
    leaver = world.set.members[4].account
    assert world.do(leaver, pb.SetVerifier(model=MODEL), pb.LeaveValidators(), serving()).accepted
    while world.ledger.epoch == 0:
        world.block()
    here, following = world.ledger.validator_set(1), world.ledger.validator_set(2)
    assert here is not None
    assert following is not None
    assert 4 in here.by_index
    assert 4 not in following.by_index
    job = world.request(a_request(tier=pb.TIER_CRITICAL))
    world.block()
    world.answer(job)
    while not world.job(job).committee:
        world.block()
    assert world.ledger.epoch == 1
    assert set(world.seats(job)) == {1, 2, 3}


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from([*(f"v{index}" for index in range(4)), *NEWCOMERS]),
        st.sampled_from(["register", "stake", "unstake", "leave", "report", "wait"]),
        st.integers(1, 2 * MINIMUM),
    ),
    max_size=14,
)


def act(chain: Chain, name: str, what: str, amount: int) -> None:
    operations: dict[str, Message] = {
        "register": registration(name, amount),
        "stake": pb.Stake(amount=amount),
        "unstake": pb.Unstake(amount=amount),
        "leave": pb.LeaveValidators(),
    }
    if what == "wait":
        chain.epochs()
    elif what == "report":
        if name.startswith("v"):
            chain.do("somebody", double_vote(int(name[1:]), name, chain.ledger.epoch))
    else:
        chain.do(name, operations[what])


@settings(max_examples=25, deadline=None)
@given(ACTIONS)
def test_no_value_is_made_or_lost_every_weight_is_covered_and_no_stake_is_stuck(
    actions: list[tuple[str, str, int]],
) -> None:
    chain = Chain()
    issued = chain.ledger.supply().issued
    for name, what, amount in actions:
        act(chain, name, what, amount)
        assert chain.money() == issued
    convicted = chain.ledger.convictions()
    for epoch in range(chain.ledger.epoch, chain.ledger.epoch + 2):
        elected = chain.ledger.validator_set(epoch)
        assert elected is not None
        for member in elected.members:
            account = chain.ledger.account(member.account)
            at_stake = account.stake + account.unbonding
            assert member.index in convicted or at_stake >= member.stake
    names = [*(f"v{index}" for index in range(4)), *NEWCOMERS]
    for name in names:
        chain.do(name, pb.LeaveValidators())
        if stake := chain.ledger.account(owner(name)).stake:
            chain.do(name, pb.Unstake(amount=stake))
    chain.epochs(12)
    members = {member.account for member in chain.ledger.validators.members}
    for name in names:
        if owner(name) not in members:
            account = chain.ledger.account(owner(name))
            assert account.stake == account.unbonding == 0, name
    assert chain.money() == issued
