"""The executor in plain Python, one transaction after another: what the native one must equal.

Envelope, fees, transfers, receipts, events, the replay window and the roots are said here anew.
The families of operations that are Python in the product, too (market, jobs, rulings), are the
product's own functions, run on plain tables.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

from assay.v1 import transactions_pb2 as pb
from chain.events import Event, EventKind
from chain.execution import (
    BlockContext,
    LaneBatch,
    appeals,
    capacity,
    faults,
    jobs,
    market,
    sessions,
    settlement,
    suspicion,
    transfers,
    traps,
)
from chain.execution import validators as validator_rules
from chain.execution.lifecycle import advance
from chain.execution.ruling import attest
from chain.execution.scope import Scope
from chain.parameters import Parameters
from chain.records import (
    ExecutionLink,
    IncludedIds,
    JobStatus,
    Session,
    SessionJob,
    Supply,
    TransactionReceipt,
)
from chain.rejections import Rejection, RejectionReason
from chain.state import State
from chain.transactions import Transaction, decode_transaction, job_id
from consensus.values import ZERO_HASH, ValidatorSet
from ext import merkle
from ext.transactions import ParsedBatch
from tests.chain.specification.tables import PlainState

WINDOW_BLOCKS = 256
FINAL = (JobStatus.VERIFIED, JobStatus.REJECTED, JobStatus.REFUNDED)


@dataclass
class PlainOutput:
    """Leaves as lists."""

    receipts: list[bytes] = field(default_factory=list)
    event_leaves: list[bytes] = field(default_factory=list)

    @property
    def events(self) -> int:
        return len(self.event_leaves)

    def append_receipt(self, leaf: bytes) -> int:
        self.receipts.append(leaf)
        return len(self.receipts) - 1

    def emit(self, kind: int, subject: bytes, other: bytes | None, amount: int, code: int) -> None:
        self.event_leaves.append(Event(EventKind(kind), subject, other, amount, code).leaf())

    def truncate_events(self, count: int) -> None:
        del self.event_leaves[count:]


class SpecificationLedger:
    """Executes blocks as `chain.execution.Ledger` does."""

    def __init__(
        self,
        chain_id: str,
        parameters: Parameters,
        validators: ValidatorSet,
        accounts: Mapping[bytes, int],
        treasury: bytes,
    ) -> None:
        self.chain_id = chain_id
        self.parameters = parameters
        self.validators = validators
        self.treasury = treasury
        self.state = PlainState()
        for key in sorted(accounts):
            self.state.accounts.put(key, accounts[key], 0, 0, 0)
        validator_rules.enter_genesis(cast(State, self.state), parameters, validators, {})
        self.state.parameters.records[b""] = parameters
        self.state.supply.records[b""] = Supply(sum(accounts.values()), 0, treasury)
        self.state.end_block()
        nothing = merkle.root([])
        link = ExecutionLink(0, self.state.root(), nothing, nothing)
        self.execution_root = link.extend(ZERO_HASH)
        self.window: dict[bytes, int] = {}

    def execute(self, block: BlockContext, lanes: Sequence[LaneBatch]) -> PlainOutput:
        output = PlainOutput()
        scope = Scope(
            state=cast(State, self.state),
            output=output,
            chain_id=self.chain_id,
            parameters=self.parameters,
            sets={0: self.validators},
            treasury=self.treasury,
            height=block.height,
            timestamp_ms=block.timestamp_ms,
            beacon=block.beacon,
        )
        self._forget_final_jobs(block.height)
        for place, session in list(self.state.sessions.scan()):
            if session.expires_at_height < block.height:
                del self.state.sessions.records[place]
                ended = (EventKind.SESSION_ENDED, place[:32], place[32:], session.spent, 0)
                scope.output.emit(*ended)
        for key in sorted(self.state.accounts.amounts):
            transfers.release_unbonded(scope, key)
        appeals.advance_appeals(scope)
        suspicion.forfeit_held(scope)
        opened = [
            (job.requested_height, key)
            for key, job in self.state.jobs.scan()
            if job.status not in FINAL
        ]
        for _, key in sorted(opened):
            advance(scope, key)
        included: list[tuple[bytes, int]] = []
        for lane in lanes:
            self._lane(scope, lane.lane, lane.batch, included)
        scope.end_block()
        self._turn_window(block.height, included)
        self.state.end_block()
        link = ExecutionLink(
            block.height,
            self.state.root(),
            merkle.root([merkle.leaf_hash(leaf) for leaf in output.receipts]),
            merkle.root([merkle.leaf_hash(leaf) for leaf in output.event_leaves]),
        )
        self.execution_root = link.extend(self.execution_root)
        return output

    def _lane(
        self, scope: Scope, lane: int, batch: ParsedBatch, included: list[tuple[bytes, int]]
    ) -> None:
        owner = self.validators.by_index[lane].account
        if self.state.convictions.get(lane.to_bytes(2, "big")) is not None:
            owner = self.treasury
        for index in range(len(batch)):
            signed = batch.transaction(index)
            try:
                transaction = decode_transaction(self.chain_id, signed.body, signed.public_key)
                receipt = self._transaction(scope, transaction, owner)
            except Rejection as rejection:
                if rejection.reason is not RejectionReason.REPLAYED:
                    refused = TransactionReceipt(signed.id, False, rejection.reason, 0)
                    scope.output.append_receipt(refused.leaf())
                continue
            leaf = scope.output.append_receipt(receipt.leaf())
            self.window[transaction.id] = scope.height
            included.append((transaction.id, leaf))
        for index in range(len(batch.attestations)):
            with suppress(Rejection):
                attest(scope, lane, batch.attestation(index))

    def _transaction(
        self, scope: Scope, transaction: Transaction, owner: bytes
    ) -> TransactionReceipt:
        """The receipt of a transaction that pays its fee. Raises Rejection if it does not."""
        body = transaction.body
        if body.valid_until_height < scope.height:
            raise Rejection(RejectionReason.EXPIRED, "")
        if body.valid_until_height > scope.height + WINDOW_BLOCKS:
            raise Rejection(RejectionReason.TOO_FAR_AHEAD, "")
        if transaction.id in self.window:
            raise Rejection(RejectionReason.REPLAYED, "")
        parameters = self.parameters
        fee = (
            parameters.fee_per_transaction
            + parameters.fee_per_operation * len(body.ops)
            + parameters.fee_per_byte * transaction.body_bytes
        )
        if body.max_fee < fee:
            raise Rejection(RejectionReason.FEE_TOO_LOW, "")
        count = len(body.ops)
        session = self._session(transaction)
        if session is not None:
            if count * session.operation_cap < fee:
                raise Rejection(RejectionReason.SESSION_OPERATION_CAP, "")
            if session.spent + fee > session.total_cap:
                raise Rejection(RejectionReason.SESSION_TOTAL_CAP, "")
        self._take(transaction.sender, fee)
        self._spend(transaction, fee)
        burned = fee * parameters.fee_burn_bps // 10_000
        scope.burned += burned
        self._give(owner, fee - burned)
        savepoint = scope.savepoint()
        sizes = self._sizes()
        try:
            for index, operation in enumerate(body.ops):
                before = self.state.accounts.get(transaction.sender)
                self._allow(transaction, operation)
                self._operation(scope, transaction, index, operation)
                after = self.state.accounts.get(transaction.sender)
                key = transaction.session_key
                if session is None or key is None or before is None or after is None:
                    continue
                taken = max(0, before[0] - after[0])
                if count * (session.operation_cap - taken) < fee:
                    raise Rejection(RejectionReason.SESSION_OPERATION_CAP, "")
                self._spend(transaction, taken)
                if operation.WhichOneof("kind") == "request_inference":
                    link = SessionJob(transaction.sender, key, session.grant)
                    self.state.session_jobs.records[job_id(transaction.id, index)] = link
            self._check_room(sizes)
        except Rejection as rejection:
            scope.rollback(savepoint)
            return TransactionReceipt(transaction.id, False, rejection.reason, fee)
        return TransactionReceipt(transaction.id, True, "", fee)

    def _sizes(self) -> dict[int, int]:
        """Rows by table."""
        records = {int(table.number): len(table.records) for table in self.state.tables()}
        return {1: len(self.state.accounts.order), **records}

    def _check_room(self, before: dict[int, int]) -> None:
        for number, size in self._sizes().items():
            bound = capacity.ACCOUNTS_MAX if number == 1 else capacity.RECORDS_MAX
            if size > max(bound, before[number]):
                raise Rejection(RejectionReason.STATE_FULL, "")

    def _operation(
        self, scope: Scope, transaction: Transaction, index: int, operation: pb.Op
    ) -> None:
        sender, signed = transaction.sender, transaction.op_bytes[index]
        kind = operation.WhichOneof("kind")
        if kind == "transfer":
            self._transfer(scope, sender, operation.transfer)
        elif kind == "stake":
            transfers.stake(scope, sender, operation.stake)
        elif kind == "unstake":
            transfers.unstake(scope, sender, operation.unstake)
        elif kind == "register_model":
            market.register_model(scope, sender, operation.register_model)
        elif kind == "set_offer":
            market.set_offer(scope, sender, operation.set_offer)
        elif kind == "set_verifier":
            market.set_verifier(scope, sender, operation.set_verifier)
        elif kind == "request_inference":
            job = job_id(transaction.id, index)
            jobs.request_inference(scope, sender, operation.request_inference, signed, job)
        elif kind == "grant_session":
            identity = sessions.grant_id(transaction.id, index)
            sessions.grant(scope, sender, operation.grant_session, identity)
        elif kind == "revoke_session":
            sessions.revoke(scope, sender, operation.revoke_session)
        elif kind == "report_fault":
            faults.report_fault(scope, operation.report_fault)
        elif kind == "set_trap":
            traps.set_trap(scope, sender, operation.set_trap)
        elif kind == "open_trap":
            settlement.end_trap(scope, sender, operation.open_trap)
        elif kind == "appeal":
            appeals.appeal(scope, sender, operation.appeal)
        else:
            jobs.submit_result(scope, sender, operation.submit_result, signed)

    def _session(self, transaction: Transaction) -> Session | None:
        """Of a transaction that a session key signed."""
        if transaction.session_key is None:
            return None
        session = self.state.sessions.get(transaction.sender + transaction.session_key)
        if session is None:
            raise Rejection(RejectionReason.UNKNOWN_SESSION, "")
        return cast(Session, session)

    def _allow(self, transaction: Transaction, operation: pb.Op) -> None:
        session = self._session(transaction)
        if session is None:
            return
        ((field_of_kind, message),) = operation.ListFields()
        if field_of_kind.number not in session.kinds:
            raise Rejection(RejectionReason.SESSION_FORBIDS, "")
        if session.models and hasattr(message, "model") and message.model not in session.models:
            raise Rejection(RejectionReason.SESSION_FORBIDS, "")
        is_transfer = field_of_kind.name == "transfer"
        if session.recipients and is_transfer and message.to not in session.recipients:
            raise Rejection(RejectionReason.SESSION_FORBIDS, "")

    def _spend(self, transaction: Transaction, amount: int) -> None:
        session = self._session(transaction)
        if session is None:
            return
        if session.spent + amount > session.total_cap:
            raise Rejection(RejectionReason.SESSION_TOTAL_CAP, "")
        place = transaction.sender + (transaction.session_key or b"")
        self.state.sessions.records[place] = session._replace(spent=session.spent + amount)

    def _transfer(self, scope: Scope, sender: bytes, message: pb.Transfer) -> None:
        if len(message.to) != 32:
            raise Rejection(RejectionReason.BAD_ADDRESS, "")
        if message.amount == 0:
            raise Rejection(RejectionReason.AMOUNT_ZERO, "")
        self._take(sender, message.amount)
        self._give(message.to, message.amount)
        scope.output.emit(EventKind.TRANSFERRED, sender, message.to, message.amount, 0)

    def _take(self, key: bytes, amount: int) -> None:
        balance, *rest = self.state.accounts.get(key) or (0, 0, 0, 0)
        if balance < amount:
            raise Rejection(RejectionReason.INSUFFICIENT_BALANCE, "")
        self.state.accounts.put(key, balance - amount, *rest)

    def _give(self, key: bytes, amount: int) -> None:
        balance, *rest = self.state.accounts.get(key) or (0, 0, 0, 0)
        self.state.accounts.put(key, balance + amount, *rest)

    def _turn_window(self, height: int, included: list[tuple[bytes, int]]) -> None:
        table = self.state.included
        if included:
            ids = b"".join(identity for identity, _ in included)
            leaves = b"".join(leaf.to_bytes(4, "little") for _, leaf in included)
            table.records[height.to_bytes(8, "big")] = IncludedIds(ids, leaves)
        old = height - WINDOW_BLOCKS
        self.window = {key: seen for key, seen in self.window.items() if seen > old}
        for key, _ in list(table.scan()):
            if int.from_bytes(key, "big") <= old:
                del table.records[key]

    def _forget_final_jobs(self, height: int) -> None:
        for key, job in list(self.state.jobs.scan()):
            kept = job.final_height + self.parameters.job_rows_kept_blocks
            if job.status in FINAL and kept <= height:
                del self.state.jobs.records[key]
