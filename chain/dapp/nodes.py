"""Several nodes of one chain as one: the first that answers is asked, one that fails has a rest."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

from assay.v1 import node_pb2, transactions_pb2
from chain.client import VALIDITY_BLOCKS, NodeClient, NodeUnavailableError
from chain.fees import fee_ceiling
from chain.keys import KeyPair
from chain.parameters import Parameters
from chain.rejections import Busy, Rejection, RejectionReason
from chain.transactions import sign_transaction

T = TypeVar("T")

NODES_MAX: Final = 32
REST_S: Final = 5.0
"""How long a node that failed is asked last."""
ANOTHER_NODE_MAY: Final = frozenset(
    {RejectionReason.BUSY, RejectionReason.TOO_FAR_AHEAD, RejectionReason.WRONG_CHAIN}
)
"""Refusals that say something about the node, not about what was asked."""


class Nodes:
    """Seen from the event loop it was made on. Use `async with`."""

    def __init__(
        self,
        addresses: Sequence[str],
        genesis: bytes = b"",
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`genesis` is the digest that every node must serve; empty takes the first one's."""
        if not 1 <= len(addresses) <= NODES_MAX or len(set(addresses)) != len(addresses):
            raise ValueError(f"{len(addresses)} nodes: give 1 to {NODES_MAX}, each once")
        self.clients = tuple(NodeClient(address) for address in addresses)
        self._genesis = genesis
        self._clock_s = clock_s
        self._rested_s: dict[NodeClient, float] = {}
        self._parameters: Parameters | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(client.__aexit__(None, None, None) for client in self.clients))

    def in_order(self) -> list[NodeClient]:
        """As given, those at rest last; among them the one that has rested longest first."""
        now_s = self._clock_s()
        return sorted(self.clients, key=lambda client: max(self._rested_s.get(client, 0), now_s))

    def rest(self, client: NodeClient) -> None:
        """Ask this one last for a while."""
        self._rested_s[client] = self._clock_s() + REST_S

    async def ask(self, call: Callable[[NodeClient], Awaitable[T]]) -> T:
        """What the first node says that answers.

        Raises Rejection; Busy if that is all that any of them said, with the shortest delay;
        NodeUnavailableError if none answers, with the words of each.
        """
        refusals: list[Rejection] = []
        failures: list[NodeUnavailableError] = []
        for client in self.in_order():
            try:
                return await call(client)
            except NodeUnavailableError as error:
                self.rest(client)
                failures.append(error)
            except Rejection as rejection:
                if rejection.reason not in ANOTHER_NODE_MAY:
                    raise
                refusals.append(rejection)
        raise worst_of(refusals, failures)

    async def status(self, client: NodeClient) -> node_pb2.StatusReply:
        """A node's status. Raises NodeUnavailableError also if it serves another chain."""
        status = await client.status()
        self._genesis = self._genesis or status.genesis
        if status.genesis != self._genesis:
            raise NodeUnavailableError(
                f"node {client.address} serves {status.chain_id!r} with genesis "
                f"{status.genesis.hex()[:16]}, wanted is {self._genesis.hex()[:16]}: remove it"
            )
        return status

    async def parameters(self) -> Parameters:
        """The chain's governed numbers, which genesis fixes."""
        if self._parameters is None:
            self._parameters = await self.ask(NodeClient.parameters)
        return self._parameters

    async def sign(
        self, key: KeyPair, operation: transactions_pb2.Op, account: bytes = b""
    ) -> tuple[transactions_pb2.SignedTx, transactions_pb2.TxBody]:
        """A signed operation, valid from now on, and what was signed. With an `account`, the key
        is a session key of it."""
        status = await self.ask(self.status)
        signed = sign_transaction(
            key.signing_key,
            status.chain_id,
            [operation],
            valid_until_height=status.height + VALIDITY_BLOCKS,
            max_fee=fee_ceiling(await self.parameters(), [operation]),
            salt=secrets.randbits(64),
            account=account,
        )
        return signed, transactions_pb2.TxBody.FromString(signed.body)


def worst_of(
    refusals: Sequence[Rejection], failures: Sequence[NodeUnavailableError]
) -> Rejection | NodeUnavailableError:
    """One error for what all nodes said: to come again soon, if one of them did."""
    busy = [refusal for refusal in refusals if isinstance(refusal, Busy)]
    if busy:
        return min(busy, key=lambda refusal: refusal.retry_delay_ms)
    if refusals:
        return refusals[0]
    return NodeUnavailableError("; ".join(str(failure) for failure in failures))
