"""What the parts of one replica share: configuration, the time of this step, and its effects."""

from collections.abc import Sequence

from consensus.certificates import Checks
from consensus.events import Broadcast, Effect, Persist, ReplicaConfig, Send, Signer
from consensus.journal import Record, encode_record
from consensus.messages import Message
from consensus.values import ValidatorSet


class Context:
    """Handed to every part; the replica alone renews time and takes the effects out."""

    def __init__(
        self, config: ReplicaConfig, signer: Signer | None, checks: Checks, now_ms: int
    ) -> None:
        if (signer is None) != (config.own_index is None):
            raise ValueError("a validator needs a signer, an observer must have none")
        self.config = config
        self.checks = checks
        self.now_ms = now_ms
        self.effects: list[Effect] = []
        self._signer = signer

    @property
    def validators(self) -> ValidatorSet:
        """The epoch's validators."""
        return self.config.validators

    @property
    def chain_id(self) -> str:
        """The chain's name, part of every signed message."""
        return self.config.chain_id

    @property
    def epoch(self) -> int:
        """The epoch's number."""
        return self.config.validators.epoch

    @property
    def own_index(self) -> int | None:
        """Own seat, None for an observer."""
        return self.config.own_index

    @property
    def resend_ms(self) -> int:
        """Pace of every retry: one delta."""
        return max(1, self.config.timing.leader_timeout_ms // 2)

    def seat(self) -> tuple[int, Signer]:
        """Own index and keys. Only a validator's parts may ask."""
        if self.config.own_index is None or self._signer is None:
            raise RuntimeError("an observer was about to sign: this is a bug")
        return self.config.own_index, self._signer

    def is_validator(self, index: int) -> bool:
        """Whether `index` names a member."""
        return index in self.config.validators.by_index

    def verify(self, signer: int, message: bytes, signature: bytes) -> bool:
        """Whether validator `signer` signed `message`."""
        key = self.config.validators.by_index[signer].signing_key
        return self.checks.verify_many([(key, message, signature)])[0]

    def verify_many(self, items: Sequence[tuple[bytes, bytes, bytes]]) -> list[bool]:
        """See `Checks`."""
        return self.checks.verify_many(items)

    def emit(self, effect: Effect) -> None:
        """Append an effect of this step."""
        self.effects.append(effect)

    def send(self, peer: int, message: Message) -> None:
        """To one peer."""
        self.effects.append(Send(peer, message))

    def broadcast(self, message: Message) -> None:
        """To every other validator."""
        self.effects.append(Broadcast(message))

    def persist(self, record: Record) -> None:
        """Into the WAL."""
        self.effects.append(Persist(encode_record(record)))
