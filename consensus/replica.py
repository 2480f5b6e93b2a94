"""The facade: one replica of the ordering core, driven by events and answering with effects."""

from consensus.events import Effect, Event, Recovered, ReplicaConfig, Signer


class Replica:
    """A validator's (or observer's) ordering core. Owns no clock, socket, disk or thread."""

    @classmethod
    def recover(
        cls, config: ReplicaConfig, signer: Signer | None, recovered: Recovered, now_ms: int
    ) -> "Replica":
        """The replica as it was when `recovered` was written. `signer` is None for an observer."""
        raise NotImplementedError

    def step(self, event: Event, now_ms: int) -> list[Effect]:
        """What to do about `event`, in order."""
        raise NotImplementedError

    @property
    def view(self) -> int:
        """The current view, from 1."""
        raise NotImplementedError

    @property
    def leader(self) -> int:
        """Validator index of the current view's leader."""
        raise NotImplementedError

    @property
    def finalized_height(self) -> int:
        """Height of the newest final block."""
        raise NotImplementedError

    @property
    def delivered_height(self) -> int:
        """Height of the newest block handed to execution."""
        raise NotImplementedError

    @property
    def lane_room(self) -> int:
        """How many batches SealBatch would take now."""
        raise NotImplementedError
