"""Two kinds of messages between validators, which never wait for each other.

Urgent is what blocks are made of: votes, proposals, certificates, acks, proofs, and what asks for
them; all of it is small. Bulk is what carries payloads or makes somebody read them from disk. Each
kind has its own connection, its own queues and its own share of memory at both ends, so that
neither a peer that is slow with batches nor one that floods us with them delays a vote.
"""

import enum

from consensus.messages import BatchMessage, BatchRequest, Blocks, BlocksRequest, Message

_BULK = (BatchMessage, BatchRequest, Blocks, BlocksRequest)


class Traffic(enum.Enum):
    """What kind a message is of."""

    URGENT = "urgent"
    BULK = "bulk"


def traffic_of(message: Message) -> Traffic:
    """The stream on which a message goes, and the only one on which it is taken."""
    return Traffic.BULK if isinstance(message, _BULK) else Traffic.URGENT
