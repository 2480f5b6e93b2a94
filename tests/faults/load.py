"""Transfers at a fixed pace, whatever the network does: an open loop."""

import asyncio
import secrets
import time
from dataclasses import dataclass, field

from assay.v1 import transactions_pb2
from chain.client import NodeClient, NodeUnavailableError
from chain.fees import fee_ceiling
from chain.keys import KeyPair
from chain.parameters import Parameters
from chain.rejections import Rejection, RejectionReason
from chain.transactions import decode_transaction, make_operation, sign_transaction
from tests.e2e.network import Network

ANSWER_WITHIN_S = 10.0
"""Then a client asks the next node."""
VALID_BLOCKS = 250
AGAIN_S = 0.1


@dataclass(slots=True)
class Payment:
    """One transfer, timed from when it was meant to be sent."""

    identity: bytes
    intended_s: float
    acknowledged_s: float | None = None
    height: int = 0
    refused: str = ""

    @property
    def finality_s(self) -> float | None:
        """Until a client held the word of a node that it is final and executed."""
        return None if self.acknowledged_s is None else self.acknowledged_s - self.intended_s


@dataclass
class Load:
    """Sends until `stop`; a node in `avoided` is asked last, as by a client that found it out."""

    network: Network
    clients: list[NodeClient]
    per_second: float
    avoided: set[int] = field(default_factory=set)
    payments: list[Payment] = field(default_factory=list)
    _height: int = 0
    _stopped: bool = False

    async def run(self) -> None:
        """Keep the pace; returns when everything that was sent has an outcome."""
        parameters = await self.clients[0].parameters()
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch())
            sending: set[asyncio.Task[None]] = set()
            number = 0
            while not self._stopped:
                intended_s = began_s + number / self.per_second
                await asyncio.sleep(max(0.0, intended_s - time.monotonic()))
                task = group.create_task(self._pay(number, intended_s, parameters))
                sending.add(task)
                task.add_done_callback(sending.discard)
                number += 1
            while sending:
                await asyncio.wait(sending)
            watch.cancel()

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True

    def between(self, from_s: float, to_s: float) -> list[Payment]:
        """What was meant to be sent in this time."""
        return [payment for payment in self.payments if from_s <= payment.intended_s < to_s]

    async def _watch(self) -> None:
        """Heights name how long a transaction is valid."""
        while True:
            for client in self._order(0):
                try:
                    self._height = max(self._height, (await client.status(2.0)).height)
                    break
                except NodeUnavailableError:
                    continue
            await asyncio.sleep(1.0)

    def _order(self, first: int) -> list[NodeClient]:
        count = len(self.clients)
        turn = [(first + step) % count for step in range(count)]
        turn.sort(key=lambda index: index in self.avoided)
        return [self.clients[index] for index in turn]

    def _signed(self, parameters: Parameters) -> transactions_pb2.SignedTx:
        to = KeyPair.generate().public_key
        operations = [make_operation(transactions_pb2.Transfer(to=to, amount=1))]
        return sign_transaction(
            self.network.user.signing_key,
            self.network.genesis.chain_id,
            operations,
            valid_until_height=self._height + VALID_BLOCKS,
            max_fee=fee_ceiling(parameters, operations),
            salt=secrets.randbits(64),
        )

    async def _pay(self, number: int, intended_s: float, parameters: Parameters) -> None:
        signed = self._signed(parameters)
        chain_id = self.network.genesis.chain_id
        decoded = decode_transaction(chain_id, signed.body, signed.public_key)
        payment = Payment(decoded.id, intended_s)
        self.payments.append(payment)
        attempt = number
        while payment.acknowledged_s is None and not payment.refused:
            client = self._order(attempt)[0]
            attempt += 1
            try:
                await self._submit(client, signed)
                status = await client.wait(payment.identity, ANSWER_WITHIN_S)
            except Rejection as rejection:
                payment.refused = rejection.reason.value
                return
            except NodeUnavailableError:
                await asyncio.sleep(AGAIN_S)
                continue
            payment.height = status.height
            payment.refused = "" if status.accepted else status.reason
            payment.acknowledged_s = time.monotonic()

    async def _submit(self, client: NodeClient, signed: transactions_pb2.SignedTx) -> None:
        """Once more does no harm: a node says REPLAYED of what is on its way or done."""
        try:
            await client.submit(signed)
        except Rejection as rejection:
            if rejection.reason is not RejectionReason.REPLAYED:
                raise
