"""What a block did, for those who follow: the leaves of the events tree."""

import enum
from dataclasses import dataclass

from consensus.wire import U8, U64, Hash, PublicKey, encode


class EventKind(enum.IntEnum):
    """What happened to the event's subject."""

    TRANSFERRED = 1
    """subject: sender; other: receiver; amount."""
    STAKED = 2
    """subject: account; amount."""
    UNSTAKED = 3
    """subject: account; amount."""
    UNBONDED = 4
    """subject: account; amount, now in its balance."""
    SLASHED = 5
    """subject: account; other: the job; amount."""
    MODEL_REGISTERED = 6
    """subject: model; other: owner."""
    OFFER_SET = 7
    """subject: model; other: provider; amount: capacity."""
    VERIFIER_SET = 8
    """subject: model; other: the validator's account; code: 1 serving, 0 not."""
    JOB_CHANGED = 9
    """subject: job; other: provider if there is one; code: the new JobStatus."""
    SESSION_GRANTED = 10
    """subject: account; other: the session's key; amount: its total cap."""
    SESSION_ENDED = 11
    """subject: account; other: the session's key; amount: spent; code: 1 revoked, 0 expired."""

    PROVIDER_EJECTED = 12
    """subject: account; other: the model; amount held of its collateral."""
    APPEAL_RULED = 13
    """subject: job; other: provider; amount paid to it; code: the AppealRuling."""
    VALIDATOR_CONVICTED = 16
    """subject: its account; other: digest of the evidence; amount slashed; code: the Fault."""

    VALIDATOR_CHANGED = 24
    """subject: its account; amount: its id; code: a ValidatorChange."""
    SET_ELECTED = 25
    """subject: digest of the set; amount: its epoch."""


class ValidatorChange(enum.IntEnum):
    """What happened to a validator."""

    REGISTERED = 1
    ROTATED = 2
    LEAVING = 3
    JAILED = 4
    UNJAILED = 5


@dataclass(frozen=True, slots=True)
class Event:
    """One event; the fields a kind does not name are empty."""

    kind: EventKind
    subject: Hash
    other: PublicKey | None = None
    amount: U64 = 0
    code: U8 = 0

    def leaf(self) -> bytes:
        """The events tree's leaf data: a tag byte, then the encoding."""
        return b"E" + encode(self)
