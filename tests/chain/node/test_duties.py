"""Duties: said on chain when the ledger lacks them, not when it has them, and again if lost."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar, cast

import pytest

from assay.v1 import transactions_pb2
from chain.execution import Ledger
from chain.keys import KeyPair
from chain.node.config import NodeConfig, ProviderSettings
from chain.node.duties import REPEAT_AFTER_MS, Duties
from chain.node.worker import LedgerWorker
from chain.parameters import GRAIN_PER_ASY
from chain.records import Offer
from chain.rejections import Rejection, RejectionReason
from chain.runtime_client import RuntimeClient
from tests.builders import key
from tests.chain.ledger_world import ALICE, BOND, World, a_pair, a_registration
from tests.chain.node.agents import PROFILE
from tests.runtime.serving import serving
from tests.runtime.tiny_engine import TinyEngine

T = TypeVar("T")
OWN_INDEX = 1
ACCOUNT = key("account-1")
STAKE = 500 * GRAIN_PER_ASY
SETTINGS = ProviderSettings(input_price=3, output_price=7, capacity=2, stake=STAKE)


def announcing(town: "Town", profile: str) -> transactions_pb2.SetVerifier:
    return transactions_pb2.SetVerifier(model=town.model, serving=True, engine_profile=profile)


class Town:
    """A ledger in memory; what the duties submit goes into its next block."""

    def __init__(
        self,
        engine: TinyEngine,
        registered: bool = True,
        pairs: Sequence[transactions_pb2.CalibratedPair] = (a_pair(PROFILE, PROFILE),),
    ) -> None:
        self.world = World(accounts={OWN_INDEX: ACCOUNT.public_key})
        self.model = engine.package.model_id
        self.now_ms = 5_000_000
        self.said: list[list[str]] = []
        self.lost = False
        self.refusal: Rejection | None = None
        if registered:
            registration = a_registration(*pairs)
            registration.model = self.model
            self.world.do(ALICE, registration)

    async def read(self, function: Callable[[Ledger], T]) -> T:
        return function(self.world.ledger)

    async def submit(self, signer: KeyPair, operations: list[transactions_pb2.Op]) -> None:
        assert signer is ACCOUNT
        self.said.append([str(operation.WhichOneof("kind")) for operation in operations])
        if self.refusal is not None:
            raise self.refusal
        if self.lost:
            return
        messages = [getattr(item, str(item.WhichOneof("kind"))) for item in operations]
        receipt = self.world.do(signer.public_key, *messages)
        if not receipt.accepted:
            raise Rejection(RejectionReason(receipt.reason), "refused")

    def announced(self) -> str | None:
        verifier = self.world.ledger.verifiers(self.model).get(OWN_INDEX)
        return None if verifier is None else verifier.engine_profile

    def offer(self) -> Offer:
        offer = self.world.ledger.offer(self.model, ACCOUNT.public_key)
        assert offer is not None
        return offer

    def duties(
        self,
        runtime: RuntimeClient,
        settings: ProviderSettings = SETTINGS,
        verifier: bool = False,
    ) -> Duties:
        config = NodeConfig(validator=OWN_INDEX, provider=settings, verifier=verifier)
        return Duties(
            OWN_INDEX,
            ACCOUNT,
            config,
            cast(LedgerWorker, self),
            runtime,
            self.submit,
            lambda: self.now_ms,
        )


async def test_stake_and_offer_are_said_once_and_then_stand() -> None:
    engine = TinyEngine()
    town = Town(engine)
    async with serving(engine) as target, RuntimeClient(target) as runtime:
        duties = town.duties(runtime)
        for _ in range(3):
            await duties.check()
            town.now_ms += REPEAT_AFTER_MS
    assert town.said == [["stake", "set_offer"]]
    offer = town.world.ledger.offer(town.model, ACCOUNT.public_key)
    assert offer is not None
    assert (offer.input_price, offer.output_price, offer.capacity) == (3, 7, 2)
    assert offer.operator == OWN_INDEX
    assert town.world.ledger.account(ACCOUNT.public_key).stake == STAKE


async def test_what_was_lost_is_said_again_after_a_while_and_not_before() -> None:
    engine = TinyEngine()
    town = Town(engine)
    town.lost = True
    async with serving(engine) as target, RuntimeClient(target) as runtime:
        duties = town.duties(runtime)
        await duties.check()
        town.now_ms += REPEAT_AFTER_MS - 1
        await duties.check()
        assert len(town.said) == 1
        town.now_ms += 1
        town.lost = False
        await duties.check()
    assert town.said == [["stake", "set_offer"]] * 2
    assert town.world.ledger.offer(town.model, ACCOUNT.public_key) is not None


async def test_other_prices_in_the_settings_change_the_offer_only() -> None:
    engine = TinyEngine()
    town = Town(engine)
    async with serving(engine) as target, RuntimeClient(target) as runtime:
        await town.duties(runtime).check()
        dearer = SETTINGS.model_copy(update={"output_price": 9})
        await town.duties(runtime, dearer).check()
    assert town.said[1:] == [["set_offer"]]
    offer = town.world.ledger.offer(town.model, ACCOUNT.public_key)
    assert offer is not None
    assert offer.output_price == 9


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS.model_copy(update={"enabled": False}),
        SETTINGS.model_copy(update={"model": "00" * 32}),
    ],
)
async def test_nothing_is_said_by_who_does_not_offer(settings: ProviderSettings) -> None:
    engine = TinyEngine()
    town = Town(engine)
    async with serving(engine) as target, RuntimeClient(target) as runtime:
        await town.duties(runtime, settings).check()
    assert town.said == []


async def test_a_model_that_is_not_registered_is_not_offered() -> None:
    engine = TinyEngine()
    town = Town(engine, registered=False)
    async with serving(engine) as target, RuntimeClient(target) as runtime:
        await town.duties(runtime).check()
    assert town.said == []


async def test_nothing_is_said_before_the_runtime_is_ready() -> None:
    town = Town(TinyEngine())
    async with RuntimeClient("127.0.0.1:1") as runtime:
        await town.duties(runtime).check()
    assert town.said == []


async def test_what_the_runtime_reports_is_announced_apart_from_the_offer() -> None:
    engine = TinyEngine()
    town = Town(engine)
    async with serving(engine) as target, RuntimeClient(target) as runtime:
        duties = town.duties(runtime, verifier=True)
        for _ in range(2):
            await duties.check()
            town.now_ms += REPEAT_AFTER_MS
    assert town.said == [["stake", "set_verifier"], ["stake", "set_offer"]]
    assert (town.announced(), town.offer().engine_profile) == (PROFILE, PROFILE)


async def test_an_offer_that_waits_for_verifiers_does_not_hold_back_the_announcement() -> None:
    engine = TinyEngine()
    town = Town(engine, pairs=(a_pair("other", PROFILE), a_pair(PROFILE, "other")))
    fellow = town.world.set.members[2].account
    assert town.world.do(fellow, BOND, announcing(town, PROFILE)).accepted
    async with serving(engine) as target, RuntimeClient(target) as runtime:
        duties = town.duties(runtime, verifier=True)
        await duties.check()
        assert town.announced() == PROFILE
        assert town.world.ledger.offer(town.model, ACCOUNT.public_key) is None
        assert town.world.do(fellow, announcing(town, "other")).accepted
        town.now_ms += REPEAT_AFTER_MS
        await duties.check()
    assert town.said == [["stake", "set_verifier"], ["stake", "set_offer"], ["stake", "set_offer"]]
    assert town.offer().engine_profile == PROFILE


async def test_a_runtime_that_comes_back_with_another_profile_is_announced_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pairs = [a_pair("faster", "faster"), a_pair(PROFILE, PROFILE)]
    town = Town(TinyEngine(), pairs=pairs)
    async with AsyncExitStack() as stack:

        async def check(profile: str) -> None:
            target = await stack.enter_async_context(serving(TinyEngine(profile=profile)))
            runtime = await stack.enter_async_context(RuntimeClient(target))
            await town.duties(runtime, verifier=True).check()

        await check(PROFILE)
        await check("faster")
        assert (town.announced(), town.offer().engine_profile) == ("faster", "faster")
        assert town.said[2:] == [["set_verifier"], ["set_offer"]]
        # Nobody measured this one: neither verify nor answer with it.
        await check("unknown")
        assert (town.announced(), town.offer().capacity) == (None, 0)
        assert len(town.said) == 6
        told = [record.getMessage() for record in caplog.records if "pair" in record.getMessage()]
        assert told == [
            f"no calibrated pair: tiny is registered without one to {what} with unknown; run "
            "another engine, or have this one calibrated"
            for what in ("verify", "answer")
        ]
        await check("unknown")
        assert len(town.said) == 6


async def test_what_the_chain_took_back_is_said_again_once_the_runtime_is_back() -> None:
    engine = TinyEngine()
    town = Town(engine)
    ready = True

    class Flickering:
        """A runtime that is out at times."""

        def __init__(self, runtime: RuntimeClient) -> None:
            self.models = runtime.models

        async def ready(self) -> bool:
            return ready

    async with serving(engine) as target, RuntimeClient(target) as runtime:
        duties = town.duties(cast(RuntimeClient, Flickering(runtime)), verifier=True)
        await duties.check()
        assert town.announced() == PROFILE
        withdrawn = transactions_pb2.SetVerifier(model=town.model, serving=False)
        assert town.world.do(ACCOUNT.public_key, withdrawn).accepted
        for ready in (False, True):
            town.now_ms += REPEAT_AFTER_MS
            await duties.check()
            assert (town.announced() == PROFILE) is ready


async def test_a_refusal_is_borne_and_tried_again_later() -> None:
    engine = TinyEngine()
    town = Town(engine)
    town.refusal = Rejection(RejectionReason.INSUFFICIENT_BALANCE, "no funds")
    async with serving(engine) as target, RuntimeClient(target) as runtime:
        duties = town.duties(runtime)
        await duties.check()
        town.refusal = None
        town.now_ms += REPEAT_AFTER_MS
        await duties.check()
    assert len(town.said) == 2
    assert town.world.ledger.account(ACCOUNT.public_key).stake == STAKE
