"""Session keys: what a key may do for an account that has granted it so much and no more.

A transaction that names an account is signed by one of its session keys. All that it costs is the
account's; the session counts it. Rules:
- the fee counts when it is taken, whether the operations then succeed or not, and is refused
  unpaid if it would pass a cap;
- an operation counts as what it took from the account's balance, measured and not foretold, so
  that no kind of operation can be forgotten; with its part of the fee it stays within
  `operation_cap`, and all together within `total_cap`;
- what a job gives back of its escrow is spent no longer, if the grant it was asked under stands;
- a session key never grants or revokes, whatever it was allowed, nor does what the account's stake
  answers for: offers, announcements, results. Their cost shows later, past every cap.

Rows are bounded: SESSIONS_MAX for an account, gone at the latest SESSION_BLOCKS_MAX blocks later.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

from assay.v1 import transactions_pb2 as pb
from chain.events import EventKind
from chain.execution.scope import Scope
from chain.records import SESSION_LIST_MAX, Session, SessionJob
from chain.rejections import Rejection, RejectionReason
from chain.state import ACCOUNT_BYTES, ID_BYTES
from ext.hashing import tagged_hash

Value = TypeVar("Value", int, bytes)

SESSIONS_MAX = 64
"""Of one account at a time."""
SESSION_BLOCKS_MAX = 1 << 22
_FIELD_NUMBERS = {field.name: field.number for field in pb.Op.DESCRIPTOR.fields}
KINDS = {
    number: name
    for name, number in _FIELD_NUMBERS.items()
    if number in pb.OperationKind.values() and number
}
"""What can be allowed, by field number of `Op`."""
_WITH_MODEL = tuple(
    field.name
    for field in pb.Op.DESCRIPTOR.fields
    if field.message_type is not None and "model" in field.message_type.fields_by_name
)


def grant_id(transaction: bytes, operation: int) -> bytes:
    """Names the grant at this place in a transaction."""
    return tagged_hash(b"grant", transaction, operation.to_bytes(4, "little"))


def grant(scope: Scope, account: bytes, message: pb.GrantSession, identity: bytes) -> None:
    """Let the key act for the account."""
    check_grant(message, account, scope.height)
    table = scope.state.sessions
    place = account + message.key
    if table.get(place) is not None:
        raise Rejection(
            RejectionReason.SESSION_EXISTS,
            f"{message.key.hex()} is a session key of this account already; revoke it first, "
            "in the same transaction if you like",
        )
    if sum(1 for _ in table.scan(account)) >= SESSIONS_MAX:
        raise Rejection(
            RejectionReason.TOO_MANY_SESSIONS,
            f"the account has {SESSIONS_MAX} session keys, no more are allowed; revoke one",
        )
    session = Session(
        grant=identity,
        operation_cap=message.operation_cap,
        total_cap=message.total_cap,
        spent=0,
        expires_at_height=message.expires_at_height,
        kinds=tuple(message.kinds),
        models=tuple(message.models),
        recipients=tuple(message.recipients),
    )
    scope.state.put(table, place, session)
    scope.sessions_changed.add((session.expires_at_height, place))
    scope.emit(EventKind.SESSION_GRANTED, account, other=message.key, amount=message.total_cap)


def revoke(scope: Scope, account: bytes, message: pb.RevokeSession) -> None:
    """End a session of the account now."""
    place = account + message.key
    _end(scope, place, _session(scope, place), code=1)


def expire(scope: Scope, places: Iterable[bytes]) -> None:
    """End the sessions at these places, whose last height is behind."""
    for place in sorted(places):
        _end(scope, place, _session(scope, place), code=0)


def check_grant(message: pb.GrantSession, account: bytes, height: int) -> None:
    """Refuse what no account could grant at this height. Raises Rejection."""
    if len(message.key) != ACCOUNT_BYTES or message.key == account:
        raise _bad("the key must have 32 bytes and be another than the account's")
    if not 1 <= message.operation_cap <= message.total_cap:
        raise _bad(
            f"operation_cap is {message.operation_cap}, needed is at least 1 and at most "
            f"total_cap, {message.total_cap}"
        )
    if not height < message.expires_at_height <= height + SESSION_BLOCKS_MAX:
        raise _bad(
            f"expires_at_height is {message.expires_at_height}, allowed are {height + 1} to "
            f"{height + SESSION_BLOCKS_MAX}"
        )
    if not message.kinds or any(kind not in KINDS for kind in message.kinds):
        raise _bad(f"kinds must name one or more of {', '.join(KINDS.values())}")
    _check_list("kinds", message.kinds)
    _check_keys("models", message.models, ID_BYTES)
    _check_keys("recipients", message.recipients, ACCOUNT_BYTES)


def fee_part(fee: int, operations: int) -> int:
    """What one of so many operations bears of their fee, rounded up."""
    return -(-fee // operations)


def after_fee(scope: Scope, place: bytes, fee: int, operations: int) -> Session:
    """The session once it has paid; nothing is written. Raises Rejection if it may not."""
    session = _session(scope, place)
    _check_operation_cap(session, fee_part(fee, operations))
    return _with_spent(session, fee)


def check_allowed(scope: Scope, place: bytes, operation: pb.Op) -> None:
    """Refuse an operation that is not on the session's lists. Raises Rejection."""
    session = _session(scope, place)
    name = operation.WhichOneof("kind") or ""
    if _FIELD_NUMBERS.get(name) not in session.kinds:
        allowed = ", ".join(KINDS[kind] for kind in session.kinds)
        raise _forbidden(f"{name or 'an empty operation'}; it may do {allowed}")
    if session.models and name in _WITH_MODEL:
        model: bytes = getattr(operation, name).model
        if model not in session.models:
            raise _forbidden(f"model {model.hex()}; it may name {_listed(session.models)}")
    if session.recipients and name == "transfer":
        receiver = operation.transfer.to
        if receiver not in session.recipients:
            raise _forbidden(
                f"a transfer to {receiver.hex()}; it may pay {_listed(session.recipients)}"
            )


def count(scope: Scope, place: bytes, taken: int, fee: int) -> None:
    """Count what an operation took from the account, after its part of the fee.

    Raises Rejection if a cap is passed; the caller rolls the operation back.
    """
    session = _session(scope, place)
    taken = max(0, taken)
    _check_operation_cap(session, fee + taken)
    scope.state.put(scope.state.sessions, place, _with_spent(session, taken))


def note_job(scope: Scope, place: bytes, job: bytes) -> None:
    """Remember under which grant a job was asked for, while it is open."""
    link = SessionJob(place[:ACCOUNT_BYTES], place[ACCOUNT_BYTES:], _session(scope, place).grant)
    scope.state.put(scope.state.session_jobs, job, link)


def give_back(scope: Scope, job: bytes, amount: int) -> None:
    """A job has ended and so much of its escrow is the account's again."""
    state = scope.state
    link = state.session_jobs.get(job)
    if link is None:
        return
    state.put(state.session_jobs, job, None)
    place = link.account + link.key
    session = state.sessions.get(place)
    if session is not None and session.grant == link.grant:
        state.put(state.sessions, place, session._replace(spent=session.spent - amount))


def _session(scope: Scope, place: bytes) -> Session:
    session = scope.state.sessions.get(place)
    if session is None:
        raise Rejection(
            RejectionReason.UNKNOWN_SESSION,
            f"{place[ACCOUNT_BYTES:].hex()} is no session key of account "
            f"{place[:ACCOUNT_BYTES].hex()}: not granted, revoked, or expired; grant it again",
        )
    return session


def _end(scope: Scope, place: bytes, session: Session, code: int) -> None:
    scope.state.put(scope.state.sessions, place, None)
    scope.sessions_changed.add((session.expires_at_height, place))
    account, key = place[:ACCOUNT_BYTES], place[ACCOUNT_BYTES:]
    scope.emit(EventKind.SESSION_ENDED, account, other=key, amount=session.spent, code=code)


def _check_operation_cap(session: Session, cost: int) -> None:
    if cost > session.operation_cap:
        raise Rejection(
            RejectionReason.SESSION_OPERATION_CAP,
            f"an operation would cost {cost} grain with its part of the fee, this session key may "
            f"spend {session.operation_cap} on one; ask for less, or use the account's own key",
        )


def _with_spent(session: Session, amount: int) -> Session:
    if session.spent + amount > session.total_cap:
        raise Rejection(
            RejectionReason.SESSION_TOTAL_CAP,
            f"{amount} grain more are needed, {session.total_cap - session.spent} of "
            f"{session.total_cap} are left to this session key; wait until open jobs give back "
            "what they did not use, or grant a new one",
        )
    return session._replace(spent=session.spent + amount)


def _check_list(name: str, values: Sequence[Value]) -> None:
    if len(values) > SESSION_LIST_MAX:
        raise _bad(f"{name} has {len(values)} entries, at most {SESSION_LIST_MAX} are allowed")
    if any(before >= after for before, after in pairwise(values)):
        raise _bad(f"{name} must rise, without repeats")


def _check_keys(name: str, values: Sequence[bytes], size: int) -> None:
    _check_list(name, values)
    if any(len(value) != size for value in values):
        raise _bad(f"each of {name} must have {size} bytes")


def _listed(keys: Sequence[bytes]) -> str:
    return ", ".join(key.hex() for key in keys)


def _bad(detail: str) -> Rejection:
    return Rejection(RejectionReason.BAD_SESSION, detail)


def _forbidden(detail: str) -> Rejection:
    return Rejection(RejectionReason.SESSION_FORBIDS, f"this session key may not do {detail}")
