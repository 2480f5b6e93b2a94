"""One validator's process, put together: store, ledger, consensus, peers, agents.

The way of things: peers and clients -> intake and driver -> consensus -> Deliver -> ledger worker
-> outcome -> agents, waiting callers, and back to consensus as Executed and Demand.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from importlib import metadata
from typing import ParamSpec, TypeVar

from assay.v1 import node_pb2, receipts_pb2, transactions_pb2
from chain.contacts import Contact, Contacts
from chain.execution import Ledger
from chain.fees import fee_ceiling
from chain.genesis import Genesis
from chain.keys import KeyPair
from chain.node.accusations import Accusations
from chain.node.config import NodeConfig
from chain.node.driver import Driver, Epochs
from chain.node.duties import Duties
from chain.node.epochs import EpochMembers, contacts_of, last_height, members_of
from chain.node.ingress import Ingress
from chain.node.intake import Intake
from chain.node.joining import Joiner, SnapshotReady
from chain.node.meter import Meter
from chain.node.outcomes import Outcome, TransactionWaits, receipts_of
from chain.node.peers import Peers, PeerService
from chain.node.provider import ProviderAgent
from chain.node.rate_limit import OpenCalls
from chain.node.recovery import VOTES_FOLDER, Opened, open_replica
from chain.node.shelf import SHELF_NAME, Shelf
from chain.node.signer import NodeKeys
from chain.node.snapshot_service import SnapshotService
from chain.node.streams import TokenStreams
from chain.node.traffic import Traffic
from chain.node.verifier import VerifierAgent
from chain.node.views import runtime_view, transaction_receipt
from chain.node.worker import LedgerWorker
from chain.receipt_files import to_protobuf
from chain.receipts import build_receipt
from chain.rejections import Rejection, RejectionReason
from chain.runtime_client import RuntimeRefusedError, RuntimeUnavailableError
from chain.runtime_pool import RuntimePool
from chain.runtime_replies import RuntimeReplyError
from chain.store import STORE_NAME, Store
from chain.transactions import sign_transaction
from consensus.events import (
    Deliver,
    Demand,
    Executed,
    Misbehaviour,
    PeerConnected,
)
from consensus.messages import Message
from consensus.values import APPEAL_ROUND
from consensus.wal import FileDirectory

AGENT_VALIDITY_BLOCKS = 128
DUTIES_INTERVAL_MS = 1_000
TOKENIZE_WITHIN_S = 2.0
LOOKUPS_MAX = 3
"""Of clients at once: asyncio has at least five threads."""
PROMPT_REFUSALS = {
    "OVER_CONTEXT": RejectionReason.PROMPT_TOO_LONG,
    "EMPTY_INPUT": RejectionReason.BAD_INPUT,
    "INPUT_TOO_LARGE": RejectionReason.BAD_INPUT,
    "BAD_TOKEN_ID": RejectionReason.BAD_INPUT,
    "BAD_CHAT": RejectionReason.BAD_INPUT,
}
"""What a runtime says of a prompt that none of its kind can answer, in the chain's words."""
"""A runtime's own word."""

T = TypeVar("T")
Arguments = ParamSpec("Arguments")
logger = logging.getLogger(__name__)


def steady_clock_ms() -> Callable[[], int]:
    """Unix milliseconds that never step back, whatever is done to the machine's clock."""
    offset_ns = time.time_ns() - time.monotonic_ns()
    return lambda: (time.monotonic_ns() + offset_ns) // 1_000_000


class Node:
    """A running validator. Build it inside the event loop; `run` returns when it is cancelled."""

    def __init__(
        self,
        config: NodeConfig,
        genesis: Genesis,
        keys: NodeKeys,
        clock_ms: Callable[[], int] | None = None,
    ) -> None:
        self.config = config
        self.genesis = genesis
        self._keys = keys
        self._clock_ms = clock_ms or steady_clock_ms()
        self.store = Store(
            config.data / STORE_NAME,
            genesis.chain_id,
            genesis.digest(),
            pruning=config.storage.policy(),
        )
        self._shelf = Shelf(
            config.data / SHELF_NAME, genesis, self.store, config.snapshots.every_blocks
        )
        self.worker = LedgerWorker(genesis, self.store, self._shelf.after_block)
        self.streams = TokenStreams()
        self.open_calls = OpenCalls(config.calls.open_max, config.calls.open_max_by_client)
        self._deliveries: asyncio.Queue[Deliver] = asyncio.Queue()
        self.height = self.store.height or 0
        self._votes_directory = FileDirectory(config.data / VOTES_FOLDER)
        self.members, contacts = self.worker.read_at_start(self._look_at_members)
        opened = self._open_replica(self.members)
        self._observes = opened.detail
        self.contacts = Contacts(contacts)
        self.peers = Peers(
            self.contacts,
            config.validator,
            keys.tls,
            lambda peer: self.driver.post(PeerConnected(peer)),
            (
                PeerService(self.contacts, self._receive, self._room, self.streams).add_to,
                SnapshotService(self.contacts, self.store, self._shelf).add_to,
            ),
            config.peer_addresses,
        )
        self.meter = Meter(
            config.validator,
            self.members.stakes(),
            self._clock_ms,
            opened.replica.finalized_block,
        )
        self._accusations = Accusations(
            keys.account, self.worker, self.submit_operations, self._clock_ms
        )
        self.driver = Driver(
            opened,
            genesis.chain_id,
            self.store,
            self.peers,
            self._deliver,
            self._clock_ms,
            lambda message: self.meter.message(config.validator, message),
            Epochs(lambda payload: self.intake.seal_again((payload,)), self._epoch_begun),
        )
        self.intake = Intake(
            genesis.chain_id,
            self.worker,
            self.driver.seal,
            lambda: self.driver.seal_room,
            config.batch_bytes,
            config.batch_interval_ms,
            config.pending_bytes_max,
        )
        self.ingress = Ingress(
            genesis.chain_id,
            self.worker,
            self.intake,
            self.driver.in_pipeline,
            self.meter.admission,
        )
        self._fill_lane(opened)
        self.is_stopping = False
        self._joiner = Joiner(
            genesis,
            config.data,
            config.snapshots,
            self.peers.channels,
            lambda: self.driver.replica.finalized_height,
            self._is_behind,
            lambda: self.members.validators,
        )
        self.must_restart = False
        """After `run`: a snapshot waits to take the store's place."""
        self._executed = asyncio.Event()
        self._lookups = asyncio.Semaphore(LOOKUPS_MAX)
        self._waits = TransactionWaits()
        self._attested_height = 0
        self._receipts_height = 0
        self._wants_blocks = False
        self._deadline_ms: int | None = None
        self._demand: Demand | None = None
        self._make_agents()

    def _make_agents(self) -> None:
        self.runtime: RuntimePool | None = None
        self._provider: ProviderAgent | None = None
        self._verifier: VerifierAgent | None = None
        self._duties: Duties | None = None
        if not self.config.runtimes:
            return
        self.runtime = RuntimePool(self.config.runtimes)
        account = self._keys.account
        if self.config.provider.enabled:
            self._provider = ProviderAgent(
                self.genesis.chain_id,
                account,
                self.runtime,
                self.store,
                self.streams,
                self.submit_operations,
                self._clock_ms,
            )
        if self.config.verifier:
            self._verifier = VerifierAgent(
                self.config.validator,
                account,
                account.public_key,
                self.runtime,
                self.store,
                self.worker.read,
                self.intake.attest,
                self._clock_ms,
            )
        self._duties = Duties(
            self.config.validator,
            account,
            self.config,
            self.worker,
            self.runtime,
            self.submit_operations,
            self._clock_ms,
        )

    async def run(self) -> None:
        """Serve peers, order, execute, and work, until cancelled or a part fails."""
        try:
            await self.peers.start(self._peer_address())
            await self._resume()
            async with asyncio.TaskGroup() as group:
                if self.runtime is not None:
                    group.create_task(self.runtime.run())
                group.create_task(self.driver.run())
                group.create_task(self.intake.run())
                group.create_task(self._execute())
                group.create_task(self._demand_timer())
                group.create_task(self._mind_duties())
                group.create_task(self._joiner.run())
        except* SnapshotReady as ready:
            logger.info("starting anew: %s", ready.exceptions[0])
            self.must_restart = True
        finally:
            self.is_stopping = True
            for agent in (self._provider, self._verifier):
                if agent is not None:
                    await agent.stop()
            await self.peers.stop()
            if self.runtime is not None:
                await self.runtime.close()
            self.driver.close()
            self._votes_directory.close()
            self.worker.close()
            self._shelf.close()
            self.store.close()

    def _peer_address(self) -> str:
        own = self.contacts.all.get(self.config.validator)
        address = self.config.peer_listen or (own.address if own is not None else "")
        if not address:
            raise OSError(
                f"the ledger here does not know validator {self.config.validator} yet: set "
                "peer_listen in node.toml to the address that it is registered with"
            )
        return address

    def now_ms(self) -> int:
        """By the node's own clock."""
        return self._clock_ms()

    @property
    def not_voting(self) -> str:
        """Why this validator does not vote; empty if it does."""
        return self._observes or self.driver.replica.silence

    @property
    def votes_by_itself(self) -> bool:
        """Whether one that does not vote will, once its peers have said where they stand."""
        return not self._observes

    def _is_behind(self) -> bool:
        """Whether a block is known to be final that this node does not have."""
        replica = self.driver.replica
        finalization = replica.finalization
        return replica.later_epoch > replica.epoch or (
            finalization is not None
            and finalization.body.view > self.driver.replica.finalized_block.view
        )

    async def next_block(self) -> None:
        """Return when another block has been executed."""
        await self._executed.wait()

    async def look_up(
        self, function: Callable[Arguments, T], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> T:
        """Run what a client asks of the store on a thread. However many ask, threads are left for
        this node's own work."""
        await self._lookups.acquire()
        work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
        work.add_done_callback(self._looked_up)
        # Who asked may go; the thread can't, and counts until it is done.
        return await asyncio.shield(work)

    def _looked_up(self, work: asyncio.Future[T]) -> None:
        self._lookups.release()
        if not work.cancelled():
            work.exception()  # asked for, so that one nobody waits for is not complained about

    async def transaction(self, identity: bytes) -> Outcome | None:
        """Height and receipt of an executed transaction."""
        return await self.look_up(transaction_receipt, self.store, identity)

    async def wait_transaction(self, identity: bytes, last_height: int) -> Outcome | None:
        """The same as soon as there is one; None when a block after `last_height` has come."""
        with self._waits.waiting(identity, last_height) as outcome:
            return await self.transaction(identity) or await outcome

    def receipt(self, job: bytes) -> receipts_pb2.Receipt:
        """A settled job's receipt. Raises Rejection, NOT_READY among others."""
        return to_protobuf(build_receipt(self.store, self.genesis, job))

    async def wait_receipt(self, job: bytes) -> receipts_pb2.Receipt:
        """The receipt of a job that is settled, once a final block vouches for it."""
        while True:
            try:
                return await self.look_up(self.receipt, job)
            except Rejection as rejection:
                if rejection.reason is not RejectionReason.NOT_READY:
                    raise
            await self.next_block()

    async def check_prompt(self, request: transactions_pb2.RequestInference) -> None:
        """Refuse a prompt that no provider can answer, if this node's runtime can tell.

        The ledger knows neither tokenizer nor vocabulary: such a job would be assigned, given up,
        at the cost of its providers' standing, and refunded.
        """
        if self.runtime is None:
            return
        try:
            await self.runtime.tokenize(request.model, request.input, TOKENIZE_WITHIN_S)
        except RuntimeRefusedError as error:
            if error.reason in PROMPT_REFUSALS:
                raise Rejection(PROMPT_REFUSALS[error.reason], error.detail) from error
        except (RuntimeUnavailableError, RuntimeReplyError) as error:
            logger.info("a prompt is not checked: %s", error)

    async def tokens(
        self, job: bytes, attempt: int, operator: int
    ) -> AsyncIterator[node_pb2.TokenChunk]:
        """The chunks of an attempt, from this node or from the provider's."""
        link = self.peers.links.get(operator)
        source = self.streams.read(job, attempt) if link is None else link.tokens(job, attempt)
        async for chunk in source:
            yield chunk

    async def submit_operations(self, key: KeyPair, operations: list[transactions_pb2.Op]) -> None:
        """Sign and admit a transaction of this node's own. Raises Rejection."""
        signed = sign_transaction(
            key.signing_key,
            self.genesis.chain_id,
            operations,
            valid_until_height=self.height + AGENT_VALIDITY_BLOCKS,
            max_fee=fee_ceiling(self.genesis.parameters, operations),
            salt=time.time_ns(),
        )
        await self.intake.submit(signed)

    async def status(self) -> node_pb2.StatusReply:
        """Where this node stands."""
        state_root, open_jobs = await self.worker.read(
            lambda ledger: (ledger.state_root(), sum(1 for _ in ledger.open_jobs()))
        )
        replica = self.driver.replica
        height = self.height
        timestamp_ms, execution_root = await self.look_up(self._standing, height)
        runtimes = () if self.runtime is None else self.runtime.states()
        return node_pb2.StatusReply(
            chain_id=self.genesis.chain_id,
            genesis=self.genesis.digest(),
            validator=self.config.validator,
            height=height,
            final_height=replica.finalized_height,
            view=replica.view,
            timestamp_ms=timestamp_ms,
            execution_root=execution_root,
            state_root=state_root,
            peers=[
                node_pb2.PeerView(
                    validator=index,
                    connected=link.connected,
                    address=link.contact.address,
                )
                for index, link in sorted(self.peers.links.items())
            ],
            runtime_ready=any(runtime.healthy for runtime in runtimes),
            runtimes=[runtime_view(runtime) for runtime in runtimes],
            open_jobs=open_jobs,
            pending_transactions=self.intake.pending,
            voting=not self.not_voting,
            detail=self.not_voting,
            version=metadata.version("assay-chain"),
            epoch=self.members.epoch,
            epoch_last_height=last_height(self.genesis, self.members.epoch) or 0,
            members=sorted(self.members.stakes()),
        )

    async def _room(self, peer: int, traffic: Traffic) -> None:
        await self.driver.room(peer, traffic)

    def _standing(self, height: int) -> tuple[int, bytes]:
        """Block time (0 for genesis) and execution root of an executed height."""
        found = self.store.final_block(height)
        root = self.store.execution_root_at(height)
        return 0 if found is None else found[0].timestamp_ms, root or b""

    async def _receive(self, peer: int, message: Message, size_bytes: int) -> None:
        self.meter.message(peer, message)
        await self.driver.receive(peer, message, size_bytes)

    def _deliver(self, delivery: Deliver | Misbehaviour) -> None:
        if isinstance(delivery, Misbehaviour):
            self._accusations.note(delivery.evidence)
            return
        self.meter.final(delivery.block)
        self._deliveries.put_nowait(delivery)

    async def _resume(self) -> None:
        """Pick up what the ledger says is under way."""
        heights = await asyncio.to_thread(self._attested_and_receipts)
        self._attested_height, self._receipts_height = heights
        self._wants_blocks, self._deadline_ms, jobs = await self.worker.read(
            lambda ledger: (
                ledger.wants_blocks(),
                ledger.next_deadline_ms(),
                [*ledger.open_jobs(), *ledger.appealed_jobs()],
            )
        )
        self.meter.resumed(sum(job.round != APPEAL_ROUND for _, job in jobs))
        for agent in (self._provider, self._verifier):
            if agent is not None:
                agent.on_jobs(jobs)

    def _attested_and_receipts(self) -> tuple[int, int]:
        """The height whose execution the newest block vouches for, and the newest above it that has
        receipts, as stored."""
        stored = self.store.block_by_height(self.height)
        if stored is None:
            return 0, 0
        attested = stored.block.executed_height
        unattested = range(attested + 1, self.height + 1)
        return attested, max(filter(self.store.receipts_at, unattested), default=0)

    async def _execute(self) -> None:
        while True:
            delivery = await self._deliveries.get()
            self.meter.executing()
            outcome = await self.worker.execute(delivery)
            self.meter.executed(delivery, outcome)
            self._wants_blocks = outcome.wants_blocks
            self._deadline_ms = outcome.next_deadline_ms
            self.height = delivery.block.height
            self._attested_height = max(self._attested_height, delivery.block.executed_height)
            if outcome.receipts:
                self._receipts_height = self.height
            self.driver.post(Executed(self.height, outcome.execution_root))
            self._update_demand()
            wanted = self._waits.wanted
            found = {}
            if wanted:
                found = await asyncio.to_thread(receipts_of, self.height, outcome.receipts, wanted)
            self._waits.settle(self.height, found)
            for refused in outcome.refused_attestations:
                logger.warning("attestation of validator %d: %s", refused.validator, refused.detail)
            for agent in (self._provider, self._verifier):
                if agent is not None:
                    agent.on_jobs((*outcome.changed_jobs, *outcome.changed_appeals))
            executed, self._executed = self._executed, asyncio.Event()
            executed.set()
            if self.height == last_height(self.genesis, delivery.block.epoch):
                await self._end_epoch()

    def _look_at_members(self, ledger: Ledger) -> tuple[EpochMembers, tuple[Contact, ...]]:
        members = members_of(ledger, self.genesis, self.height)
        return members, contacts_of(ledger, self.genesis)

    def _open_replica(self, members: EpochMembers) -> Opened:
        return open_replica(
            self.config,
            self.genesis,
            self._keys,
            self.store,
            self._votes_directory,
            members,
            self._clock_ms(),
        )

    async def _end_epoch(self) -> None:
        """The last block of an epoch has been executed: the next one's engine takes over."""
        members, contacts = await self.worker.read(self._look_at_members)
        self._follow_contacts(contacts)
        self._next_members = members
        self.driver.succeed(lambda: self._open_replica(members))

    def _epoch_begun(self, opened: Opened) -> None:
        """The driver has put the next epoch's engine in its place."""
        self.members = self._next_members
        self._observes = opened.detail
        logger.info(
            "epoch %d begins with validators %s%s",
            *(
                opened.epoch,
                sorted(self.members.stakes()),
                f": {opened.detail}" * bool(opened.detail),
            ),
        )
        self.meter.begin_epoch(self.members.stakes())
        self._fill_lane(opened)
        for peer, link in self.peers.links.items():
            if link.connected:
                self.driver.post(PeerConnected(peer))

    def _fill_lane(self, opened: Opened) -> None:
        is_member = self.members.member(self.config.validator) is not None
        self.intake.closed = "" if is_member else opened.detail
        self.intake.seal_again(opened.unfinal)

    def _follow_contacts(self, contacts: tuple[Contact, ...]) -> None:
        if tuple(self.contacts.all.values()) != contacts:
            self.contacts.replace(contacts)
            self.peers.follow_contacts()

    def _update_demand(self) -> None:
        """Blocks are wanted for steps that need nothing else, for deadlines, and for
        attestation."""
        overdue = self._deadline_ms is not None and self._clock_ms() > self._deadline_ms
        unattested = self._receipts_height > self._attested_height
        wanted = self._wants_blocks or overdue or unattested
        demand = Demand(wanted)
        if demand != self._demand:
            self._demand = demand
            self.driver.post(demand)

    async def _demand_timer(self) -> None:
        while True:
            self._update_demand()
            await asyncio.sleep(DUTIES_INTERVAL_MS / 1000)

    async def _mind_duties(self) -> None:
        while True:
            self._follow_contacts(
                await self.worker.read(lambda ledger: contacts_of(ledger, self.genesis))
            )
            await self._accusations.check()
            if self._duties is not None:
                await self._duties.check()
            await asyncio.sleep(DUTIES_INTERVAL_MS / 1000)
