"""What it costs to put a model into the state, where it stays."""

from assay.v1 import transactions_pb2 as pb
from chain.parameters import GRAIN_PER_ASY, Parameters
from chain.rejections import RejectionReason
from ext.hashing import tagged_hash
from tests.chain.ledger_world import ALICE, OWNER, World, a_registration, balance, total_value


def a_model(name: bytes) -> pb.RegisterModel:
    registration = a_registration()
    registration.model = tagged_hash(name)
    return registration


def test_a_registered_model_costs_its_price_which_is_burned() -> None:
    world = World()
    before, issued = balance(world, ALICE), total_value(world.ledger)
    burned = world.ledger.supply().burned
    done = world.do(ALICE, a_model(b"one"))
    assert done.accepted
    price = world.parameters.model_price
    assert price == GRAIN_PER_ASY
    assert balance(world, ALICE) == before - done.fee - price
    fee_burned = done.fee * world.parameters.fee_burn_bps // 10_000
    assert world.ledger.supply().burned == burned + fee_burned + price
    assert total_value(world.ledger) == issued


def test_who_cannot_pay_the_price_registers_nothing_and_keeps_the_rest() -> None:
    world = World(parameters=Parameters(model_price=1_000_000 * GRAIN_PER_ASY))
    before = balance(world, ALICE)
    refused = world.do(ALICE, pb.Transfer(to=OWNER, amount=1), a_model(b"dear"))
    assert refused.reason == RejectionReason.INSUFFICIENT_BALANCE
    assert balance(world, ALICE) == before - refused.fee
    assert world.ledger.model(a_model(b"dear").model) is None


def test_a_model_that_is_registered_already_costs_nothing_more() -> None:
    world = World()
    assert world.do(OWNER, a_registration()).accepted
    before = balance(world, ALICE)
    refused = world.do(ALICE, a_registration())
    assert refused.reason == RejectionReason.MODEL_EXISTS
    assert balance(world, ALICE) == before - refused.fee
