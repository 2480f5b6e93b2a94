"""Where validators stand, from registration to the day their stake is theirs again."""

from assay.v1 import transactions_pb2 as pb
from chain.standings import Standing, ValidatorStanding, standings
from tests.chain.epoch_world import MINIMUM, Chain, double_vote, owner, registration


def of(chain: Chain, index: int) -> ValidatorStanding:
    (found,) = standings(chain.ledger, index, 1)
    assert found.index == index
    return found


def test_a_candidate_waits_is_seated_leaves_unbonds_and_is_gone() -> None:
    chain = Chain()
    chain.do("new 0", registration("new 0"))
    assert (of(chain, 4).standing, of(chain, 4).from_epoch) == (Standing.WAITING, None)
    chain.epochs()
    assert (of(chain, 4).standing, of(chain, 4).from_epoch) == (Standing.WAITING, 2)
    chain.epochs()
    seated = of(chain, 4)
    assert (seated.standing, seated.weight, seated.bonded) == (Standing.ACTIVE, MINIMUM, MINIMUM)
    chain.do("new 0", pb.LeaveValidators(), pb.Unstake(amount=MINIMUM))
    leaving = of(chain, 4)
    assert (leaving.standing, leaving.weight, leaving.unbonding) == (
        Standing.UNBONDING,
        MINIMUM,
        MINIMUM,
    )
    chain.epochs(8)
    assert (of(chain, 4).standing, of(chain, 4).from_epoch) == (Standing.LEFT, None)
    assert chain.ledger.account(owner("new 0")).stake == 0


def test_a_convicted_validator_is_jailed_and_shows_why() -> None:
    chain = Chain()
    chain.do("somebody", double_vote(2, "v2", epoch=0))
    found = of(chain, 2)
    assert (found.standing, found.weight) == (Standing.JAILED, MINIMUM)
    assert found.conviction is not None


def test_a_page_has_no_more_than_was_asked_for() -> None:
    assert [entry.index for entry in standings(Chain().ledger, 1, 2)] == [1, 2]
