"""Session keys through the real node: whatever a key sends, and however, its caps hold."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from assay.v1 import node_pb2, transactions_pb2
from chain.client import NodeClient
from chain.execution.sessions import KINDS
from chain.keys import KeyPair
from chain.rejections import Rejection, RejectionReason
from chain.transactions import make_operation, sign_transaction
from tests.builders import key
from tests.chain.ledger_world import a_registration, a_request
from tests.chain.node.running_node import running_node, solitary_genesis

T = TypeVar("T")

BOUND_S = 120.0
OPERATION_CAP = 200_000
TOTAL_CAP = 1_000_000
TAKES: dict[str, Callable[[bytes, int], Message]] = {
    "transfer": lambda to, amount: transactions_pb2.Transfer(to=to, amount=amount),
    "stake": lambda _, amount: transactions_pb2.Stake(amount=amount),
    "unstake": lambda _, amount: transactions_pb2.Unstake(amount=amount),
    "register_model": lambda _, __: a_registration(),
    "request_inference": lambda _, amount: a_request(max_price=amount),
}
"""For each kind that can be allowed: the operation by a session key that is to take an amount."""
Spending = tuple[str, int]


def transfers(*amounts: int) -> tuple[Spending, ...]:
    return tuple(("transfer", amount) for amount in amounts)


@dataclass(frozen=True)
class Try:
    """Transactions of one call: the operations of each."""

    transactions: tuple[tuple[Spending, ...], ...]
    route: str


class House:
    """A node that can be restarted, and the loop that both it and its clients live on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.genesis = solitary_genesis("granter")
        self.granter = key("granter")
        self.loop = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.client: NodeClient

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(coroutine)

    async def open(self) -> None:
        running = running_node(self.folder, self.genesis)
        _, self.client = await self.stack.enter_async_context(running)
        await self.client.status()  # it runs: what never ran does not close its store

    async def restart(self) -> None:
        await self.stack.aclose()
        await self.open()

    async def grant(self, session: KeyPair) -> None:
        """Caps for all that can be allowed; what granting takes is not the session's."""
        height = (await self.client.status()).height
        message = transactions_pb2.GrantSession(
            key=session.public_key,
            operation_cap=OPERATION_CAP,
            total_cap=TOTAL_CAP,
            expires_at_height=height + 100_000,
            kinds=[transactions_pb2.OperationKind.ValueType(kind) for kind in KINDS],
        )
        await self.by_granter(make_operation(message))

    async def by_granter(self, *operations: transactions_pb2.Op) -> None:
        signed = await self.client.sign(self.granter, operations)
        status = await self.client.wait(await self.client.submit(signed), BOUND_S)
        assert status.accepted, status.reason

    async def balance(self) -> int:
        return (await self.client.account(self.granter.public_key)).balance

    async def holdings(self) -> int:
        """Balance and stake, bound or not."""
        view = await self.client.account(self.granter.public_key)
        return view.balance + view.stake + view.unbonding

    async def session(self, session: KeyPair) -> node_pb2.SessionView:
        views = await self.client.sessions(self.granter.public_key)
        (found,) = [view for view in views if view.key == session.public_key]
        return found

    async def signed(
        self, session: KeyPair, tries: Sequence[tuple[Spending, ...]]
    ) -> list[transactions_pb2.SignedTx]:
        status = await self.client.status()
        return [
            sign_transaction(
                session.signing_key,
                status.chain_id,
                [
                    make_operation(TAKES[kind](session.public_key, amount))
                    for kind, amount in spendings
                ],
                valid_until_height=status.height + 100,
                max_fee=10**9,
                salt=secrets.randbits(64),
                account=self.granter.public_key,
            )
            for spendings in tries
        ]

    async def send(self, session: KeyPair, attempt: Try) -> list[node_pb2.TransactionStatus]:
        """What became of those that were let in, all of them final."""
        signed = await self.signed(session, attempt.transactions)
        outcomes = await self.admitted(signed, attempt.route)
        return [await self.client.wait(identity, BOUND_S) for identity in outcomes]

    async def admitted(
        self, signed: Sequence[transactions_pb2.SignedTx], route: str
    ) -> list[bytes]:
        if route == "many":
            outcomes = await self.client.submit_many(signed)
            return [item.id for item in outcomes if not item.reason]
        if route == "stream":

            async def frames() -> AsyncIterator[Sequence[transactions_pb2.SignedTx]]:
                for one in signed:
                    yield [one]

            replies = self.client.submit_stream(frames(), BOUND_S)
            return [item.id async for reply in replies for item in reply if not item.reason]
        accepted = []
        for one in signed:
            try:
                accepted.append(await self.client.submit(one))
            except Rejection as rejection:
                event(f"refused at the door: {rejection.reason}")
        return accepted


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house"))
    house.run(house.open())
    yield house
    house.run(house.stack.aclose())
    house.loop.close()


kinds = st.sampled_from(["transfer"] * 4 + ["stake"] * 2 + ["unstake", *sorted(TAKES)])
amounts = st.sampled_from([1, 10_000, 90_000, 90_000, 150_000, 150_000, OPERATION_CAP])
tries = st.builds(
    Try,
    transactions=st.lists(
        st.lists(st.tuples(kinds, amounts), min_size=1, max_size=3).map(tuple),
        min_size=1,
        max_size=12,
    ).map(tuple),
    route=st.sampled_from(["one", "many", "many", "stream"]),
)
scripts = st.lists(st.one_of(tries, tries, tries, st.just("restart")), min_size=1, max_size=5)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(script=scripts)
@example(
    script=[
        Try((transfers(150_000),) * 12, "many"),
        "restart",
        Try((transfers(150_000),) * 3, "stream"),
    ]
)
@example(
    script=[Try((transfers(*[150_000] * 9),), "one"), Try((transfers(*[90_000] * 3),) * 9, "many")]
)
@example(script=[Try(((("stake", 90_000), ("unstake", 90_000)),) * 12, "many")])
def test_a_session_key_cannot_exceed_its_caps_by_any_route(
    house: House, script: list[Try | str]
) -> None:
    session = KeyPair.generate()
    revocation = make_operation(transactions_pb2.RevokeSession(key=session.public_key))

    async def play() -> None:
        before, before_balance = await house.holdings(), await house.balance()
        for step in script:
            if isinstance(step, str):
                await house.restart()
                continue
            for status in await house.send(session, step):
                event(status.reason or "ACCEPTED")
        lost = before - await house.holdings()
        assert 0 <= lost <= (await house.session(session)).spent <= TOTAL_CAP
        assert 0 <= before_balance - await house.balance() <= TOTAL_CAP

    house.run(house.grant(session))
    try:
        house.run(play())
    finally:
        house.run(house.by_granter(revocation))


def test_the_property_plays_every_kind_that_can_be_allowed() -> None:
    assert set(TAKES) == set(KINDS.values())


def test_a_flood_in_one_call_is_held_to_the_total(house: House) -> None:
    session = KeyPair.generate()

    async def play() -> list[str]:
        await house.grant(session)
        flood = Try((transfers(150_000),) * 30, "many")
        return [status.reason for status in await house.send(session, flood)]

    reasons = house.run(play())
    assert reasons.count("") == 6
    assert set(reasons) == {"", "SESSION_TOTAL_CAP"}


def test_each_operation_stays_within_its_cap(house: House) -> None:
    session = KeyPair.generate()

    async def play() -> None:
        await house.grant(session)
        (dear,) = await house.signed(session, [transfers(1, OPERATION_CAP)])
        with pytest.raises(Rejection) as refused:
            await house.client.submit(dear)
        assert refused.value.reason is RejectionReason.SESSION_OPERATION_CAP
        assert (await house.session(session)).spent == 0

    house.run(play())
