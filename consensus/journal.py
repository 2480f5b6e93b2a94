"""What a replica writes into its WAL, so that it never contradicts itself after a restart.

Own votes bind; proposals it voted for keep their blocks alive if everybody restarts at once;
certificates bring it back to its view; headers of own batches are the lane's watermark.
"""

from typing import Final

from consensus.evidence import SignedHeader
from consensus.messages import Proposal
from consensus.values import Certificate, Vote
from consensus.wire import DecodeError, decode, encode

Record = Vote | Proposal | Certificate | SignedHeader

_KINDS: Final[dict[int, type[Record]]] = {1: Vote, 2: Proposal, 3: Certificate, 4: SignedHeader}
_TAGS: Final = {kind: tag for tag, kind in _KINDS.items()}


def encode_record(record: Record) -> bytes:
    """Tag byte and canonical encoding."""
    return bytes((_TAGS[type(record)],)) + encode(record)


def decode_record(data: bytes) -> Record:
    """The record whose encoding is `data`. Raises DecodeError for anything else."""
    kind = _KINDS.get(data[0]) if data else None
    if kind is None:
        raise DecodeError(f"WAL record starts with {data[:1].hex() or 'nothing'}, known are 1 to 4")
    return decode(kind, data[1:])
