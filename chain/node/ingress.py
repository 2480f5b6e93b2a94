"""Clients' transactions by the thousand: from raw request bytes to the intake.

A request stays the bytes that came. It is counted, parsed into arrays, its signatures are checked
and its bodies parsed on the pipeline's thread, without the interpreter lock. The ledger's thread
then admits it, all plain transfers in one call and the rest in slices. What is admitted goes to the
intake as pieces of the request: SubmitManyRequest and BatchPayload serialise transactions alike.

Bounds: a request has at most SUBMIT_MANY_MAX transactions and SUBMIT_BYTES_MAX bytes; those being
checked have reserved their bytes in the intake, and there are at most CALLS_MAX of them; one
request at a time is on the pipeline's and the ledger's threads, so a peer's batch waits for no more
than that one, and a block for no more than a slice of it. Of a stream at most FRAMES_MAX frames are
under way, from being read until their reply is taken.
"""

import asyncio
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from assay.v1 import node_pb2, transactions_pb2
from chain.execution import Ledger
from chain.node.intake import Intake, already_waits
from chain.node.worker import LedgerWorker
from chain.rejections import Busy, Rejection, RejectionReason
from chain.transactions import (
    SUBMIT_BYTES_MAX,
    SUBMIT_MANY_MAX,
    Transaction,
    check_signed,
    decode_transaction,
    unsigned,
)
from ext.bodies import OTHER, Bodies, parse_bodies
from ext.signatures import verify_batch
from ext.transactions import (
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    ParsedBatch,
    ParseError,
    count_batch,
    parse_batch,
)

CALLS_MAX: Final = 256
STREAMS_MAX: Final = 64
FRAMES_MAX: Final = 4
OPERATIONS_AT_ONCE: Final = 512
"""That are no plain transfers, on the ledger's thread: a few milliseconds, for which a block may
have to wait."""
BUSY_DELAY_MS: Final = 100
"""When to come again if it is not the intake that is full."""

T = TypeVar("T")
CountAdmission = Callable[[int, Mapping[RejectionReason, int]], None]
"""Told of each call how many transactions were admitted, and how many refused for which reason."""
_BEHIND_BODY_BYTES = 2 + PUBLIC_KEY_BYTES + 2 + SIGNATURE_BYTES
_ID_BYTES = 32
_ACCEPTED_PREFIX = bytes((0x0A, 2 + _ID_BYTES, 0x0A, _ID_BYTES))
"""Before the id of an outcome that has nothing else, in SubmitManyReply."""


class InPipeline(Protocol):
    """Runs a function on the pipeline's thread."""

    def __call__(self, function: Callable[..., T], *arguments: object) -> Awaitable[T]:
        """What the function returned or raised."""


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """What the pipeline found in a request, and what is left for the ledger to say."""

    batch: ParsedBatch
    bodies: Bodies
    ids: tuple[bytes, ...]
    """Of the transactions there is room for: the first of the batch."""
    fields: tuple[bytes, ...]
    """The same, as fields of BatchPayload."""
    others: dict[int, Transaction]
    """Those that are no plain transfers, by place."""
    refused: dict[int, Rejection]
    """By place."""


class Ingress:
    """From requests to the intake. Used from the event loop only."""

    def __init__(
        self,
        chain_id: str,
        worker: LedgerWorker,
        intake: Intake,
        in_pipeline: InPipeline,
        count: CountAdmission = lambda admitted, refused: None,
    ) -> None:
        self._chain_id = chain_id
        self._worker = worker
        self._intake = intake
        self._in_pipeline = in_pipeline
        self._count = count
        self._turn = asyncio.Semaphore(1)
        self._calls = 0
        self._streams = 0

    async def submit(self, signed: transactions_pb2.SignedTx) -> Transaction:
        """Check and admit one transaction. Raises Rejection."""
        self._enter()
        try:
            async with self._turn:
                transaction = await self._in_pipeline(
                    check_signed,
                    self._chain_id,
                    signed.body,
                    signed.public_key,
                    signed.signature,
                )
            await self._intake.admit(transaction, signed)
        finally:
            self._calls -= 1
        self._count(1, {})
        return transaction

    async def submit_many(self, request: bytes) -> bytes:
        """A serialised SubmitManyRequest in, a serialised SubmitManyReply out.

        Raises Rejection for the request as a whole: MALFORMED, TOO_LARGE, or Busy if there is no
        room for any of it. Where there is room for some, the others' outcomes are BUSY.
        """
        check_size(request)
        self._enter()
        try:
            granted = self._intake.reserve(len(request))
            return await self._admit(request, granted, self._room(granted))
        finally:
            self._calls -= 1

    async def stream(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Replies for requests, in order; reads on only while there is room. Raises Rejection."""
        if self._streams >= STREAMS_MAX:
            raise Busy(
                f"{self._streams} streams are open, allowed are {STREAMS_MAX}; use SubmitMany or "
                "another node",
                BUSY_DELAY_MS,
            )
        slots = asyncio.Semaphore(FRAMES_MAX)
        frames: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        under_way: set[asyncio.Task[bytes]] = set()
        self._streams += 1
        reader = asyncio.create_task(self._read_frames(requests, slots, frames, under_way))
        try:
            while (frame := await frames.get()) is not None:
                yield await frame
                under_way.discard(frame)
                slots.release()
            await reader
        finally:
            self._streams -= 1
            for task in (reader, *under_way):
                task.cancel()
            await asyncio.gather(reader, *under_way, return_exceptions=True)

    async def _read_frames(
        self,
        requests: AsyncIterator[bytes],
        slots: asyncio.Semaphore,
        frames: "asyncio.Queue[asyncio.Task[bytes] | None]",
        under_way: "set[asyncio.Task[bytes]]",
    ) -> None:
        try:
            await slots.acquire()
            async for request in requests:
                check_size(request)
                await self._intake.reserve_all(len(request))
                room = self._room(len(request))
                task = asyncio.create_task(self._admit(request, len(request), room))
                # A task that is cancelled before its first step never comes to its own `finally`.
                task.add_done_callback(partial(_close, room))
                under_way.add(task)
                frames.put_nowait(task)
                await slots.acquire()
        finally:
            frames.put_nowait(None)

    def _enter(self) -> None:
        if self._calls >= CALLS_MAX:
            raise Busy(
                f"{self._calls} calls are being checked, allowed are {CALLS_MAX}; put more "
                "transactions into a call, or use SubmitStream",
                BUSY_DELAY_MS,
            )
        self._calls += 1

    def _room(self, granted: int) -> ExitStack:
        """Reserved room, to be given back once, by whoever closes it first."""
        room = ExitStack()
        room.callback(self._intake.release, granted)
        return room

    async def _admit(self, request: bytes, granted: int, room: ExitStack) -> bytes:
        """Check what there is room for and queue what is good. Gives the granted room back."""
        try:
            async with self._turn:
                checked = await self._in_pipeline(check_request, self._chain_id, request, granted)
                if not checked.fields and len(checked.batch):
                    raise self._intake.busy(len(request))
                refused = {**await self._refused_by_ledger(checked), **checked.refused}
            self._queue(checked, refused)
        finally:
            room.close()
        delay_ms = 0
        if len(checked.fields) < len(checked.batch):
            busy = self._intake.busy(len(request))
            delay_ms = busy.retry_delay_ms
            for place in range(len(checked.fields), len(checked.batch)):
                refused[place] = busy
        reply, reasons = await self._in_pipeline(
            encode_counted, checked.batch.ids, refused, delay_ms
        )
        self._count(len(checked.batch) - len(refused), reasons)
        return reply

    async def _refused_by_ledger(self, checked: Checked) -> dict[int, Rejection]:
        """By place. Between two slices the ledger's thread may execute a block."""
        refused = await self._worker.read(lambda ledger: ledger.admit_plain(checked.bodies))
        for some in slices(checked.others):
            refused |= await self._worker.read(partial(Ledger.admit_each, transactions=some))
        return refused

    def _queue(self, checked: Checked, refused: dict[int, Rejection]) -> None:
        """Hand what is not refused to the intake; whatever waits there already is refused, too."""
        ids = checked.ids
        places: Sequence[int] = range(len(ids))
        if refused:
            places = [place for place in places if place not in refused]
        fields = {ids[place]: checked.fields[place] for place in places}
        known = set(self._intake.add(fields))
        if not known and len(fields) == len(places):
            return
        for place in places:
            if ids[place] in known:
                refused[place] = already_waits(ids[place])
            known.add(ids[place])  # once more in this very request


def slices(others: dict[int, Transaction]) -> Iterator[dict[int, Transaction]]:
    """The same in parts of OPERATIONS_AT_ONCE operations, or of one transaction that has more."""
    some: dict[int, Transaction] = {}
    operations = 0
    for place, transaction in others.items():
        count = len(transaction.op_bytes)
        if some and operations + count > OPERATIONS_AT_ONCE:
            yield some
            some, operations = {}, 0
        some[place] = transaction
        operations += count
    if some:
        yield some


def _close(room: ExitStack, _: asyncio.Task[bytes]) -> None:
    room.close()


def check_size(request: bytes) -> None:
    """Refuse a request that is too long to be looked at. Raises Rejection."""
    if len(request) > SUBMIT_BYTES_MAX:
        raise Rejection(
            RejectionReason.TOO_LARGE,
            f"the request has {len(request)} bytes, allowed are {SUBMIT_BYTES_MAX}; split it",
        )


def check_request(chain_id: str, request: bytes, room_bytes: int) -> Checked:
    """All that needs no state: shape, signatures, bodies. Looks at what fits into `room_bytes`.

    Raises Rejection for the whole request.
    """
    batch = _parse(request)
    bodies_at = batch.bodies.astype(np.int64)
    ends = bodies_at.sum(axis=1) + _BEHIND_BODY_BYTES
    fitting = int(np.searchsorted(ends, room_bytes, side="right"))
    bodies = parse_bodies(batch, chain_id.encode())
    refused: dict[int, Rejection] = {}
    others: dict[int, Transaction] = {}
    valid = verify_batch(
        batch.public_keys[:fitting],
        batch.signing_digests(chain_id.encode())[:fitting],
        batch.signatures[:fitting],
    )
    for place in np.flatnonzero(~valid).tolist():
        refused[place] = unsigned(chain_id, batch.transaction(place).body)
    for place in np.flatnonzero(valid & (bodies.classes[:fitting] == OTHER)).tolist():
        signed = batch.transaction(place)
        try:
            others[place] = decode_transaction(chain_id, signed.body, signed.public_key)
        except Rejection as rejection:
            refused[place] = rejection
    starts = [0, *ends[:fitting].tolist()]
    fields = tuple(request[start:end] for start, end in pairwise(starts))
    joined = batch.ids[:fitting].tobytes()
    ids = tuple(joined[at : at + _ID_BYTES] for at in range(0, len(joined), _ID_BYTES))
    return Checked(batch, bodies, ids, fields, others, refused)


def encode_counted(
    ids: NDArray[np.uint8], refused: dict[int, Rejection], delay_ms: int
) -> tuple[bytes, Counter[RejectionReason]]:
    """The reply, and how many transactions were refused for which reason."""
    reasons = Counter(rejection.reason for rejection in refused.values())
    return encode_reply(ids, refused, delay_ms), reasons


def encode_reply(ids: NDArray[np.uint8], refused: dict[int, Rejection], delay_ms: int) -> bytes:
    """A serialised SubmitManyReply: an outcome for each id, in order."""
    accepted = np.empty((len(ids), len(_ACCEPTED_PREFIX) + _ID_BYTES), dtype=np.uint8)
    accepted[:, : len(_ACCEPTED_PREFIX)] = np.frombuffer(_ACCEPTED_PREFIX, dtype=np.uint8)
    accepted[:, len(_ACCEPTED_PREFIX) :] = ids
    parts: list[bytes] = []
    start = 0
    for place in sorted(refused):
        parts.append(accepted[start:place].tobytes())
        rejection = refused[place]
        outcome = node_pb2.SubmitManyReply.Outcome(
            id=ids[place].tobytes(), reason=rejection.reason.value, detail=rejection.detail
        )
        parts.append(node_pb2.SubmitManyReply(outcomes=[outcome]).SerializeToString())
        start = place + 1
    parts.append(accepted[start:].tobytes())
    parts.append(node_pb2.SubmitManyReply(retry_delay_ms=delay_ms).SerializeToString())
    return b"".join(parts)


def _parse(request: bytes) -> ParsedBatch:
    try:
        count, attestations = count_batch(request)
        if count > SUBMIT_MANY_MAX:
            raise Rejection(
                RejectionReason.TOO_LARGE,
                f"{count} transactions in one request, allowed are {SUBMIT_MANY_MAX}; split it",
            )
        if attestations:
            raise _malformed("field 2 is unknown")
        return parse_batch(request)
    except ParseError as error:
        raise _malformed(str(error)) from error


def _malformed(cause: str) -> Rejection:
    return Rejection(
        RejectionReason.MALFORMED,
        f"the request is not a message of assay.v1.Transactions, or not a canonical one: {cause}; "
        "build it with the schemas of this version, each transaction with its three fields and "
        "nothing else",
    )
