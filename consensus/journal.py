"""What a replica writes into its WAL, so that it never contradicts itself after a restart.

Own votes bind; proposals it voted for keep their blocks alive if everybody restarts at once;
certificates bring it back to its view; headers of own batches are the lane's watermark. A log that
replaces a lost one says so (`memory`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from consensus.evidence import SignedHeader
from consensus.messages import Proposal
from consensus.values import Certificate, Vote
from consensus.wire import U64, DecodeError, decode, encode


@dataclass(frozen=True, slots=True)
class Watermark:
    """This log does not go back to the key's first vote; the newest such record counts."""

    votes_above: U64 | None
    """Nothing was or will be signed here in views up to this one; None: it is not known yet, and
    nothing is signed at all."""
    knows_lane: bool
    """Whether all own batches that others hold are stored here."""
    handed_on: bool = False
    """Whether it was the log of an earlier epoch that began so."""


FORGOTTEN: Final = Watermark(None, False)
"""How a log begins whose key may have been used before."""
HANDED_ON: Final = Watermark(None, False, handed_on=True)
"""How an epoch's log begins after one that began so, and did not get to know more."""
Record = Vote | Proposal | Certificate | SignedHeader | Watermark

_KINDS: Final[dict[int, type[Record]]] = {
    1: Vote,
    2: Proposal,
    3: Certificate,
    4: SignedHeader,
    5: Watermark,
}
_TAGS: Final = {kind: tag for tag, kind in _KINDS.items()}


def carried(records: Sequence[bytes]) -> tuple[bytes, ...]:
    """What the log of an epoch begins with after one with these records: nothing, unless it was not
    known at the end of that epoch what was signed in it, and so neither what was signed since."""
    marks = [record for record in map(decode_record, records) if isinstance(record, Watermark)]
    if not marks or (marks[-1].votes_above is not None and marks[-1].knows_lane):
        return ()
    return (encode_record(HANDED_ON),)


def encode_record(record: Record) -> bytes:
    """Tag byte and canonical encoding."""
    return bytes((_TAGS[type(record)],)) + encode(record)


def decode_record(data: bytes) -> Record:
    """The record whose encoding is `data`. Raises DecodeError for anything else."""
    kind = _KINDS.get(data[0]) if data else None
    if kind is None:
        raise DecodeError(
            f"WAL record starts with {data[:1].hex() or 'nothing'}, known are 1 to {len(_KINDS)}"
        )
    return decode(kind, data[1:])
