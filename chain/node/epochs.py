"""Which epoch a node is in, and with whom: read off its own executed ledger.

The engine of an epoch is made only when the block before the epoch's first has been executed here.
Then the ledger knows the members of this epoch and of the next one, and nothing of an epoch is
stored as final before all of the ones below it has been executed.
"""

from dataclasses import dataclass

from chain.contacts import Contact
from chain.execution import Ledger
from chain.genesis import Genesis
from chain.rocks import StoreError
from consensus import epochs
from consensus.values import Validator, ValidatorSet


@dataclass(frozen=True, slots=True)
class EpochMembers:
    """What the ledger at the end of an epoch, or within the next, says of that next one."""

    validators: ValidatorSet
    following: ValidatorSet | None
    """Of the epoch after it; None on a chain that has one epoch for ever."""

    @property
    def epoch(self) -> int:
        """The epoch's number."""
        return self.validators.epoch

    def stakes(self) -> dict[int, int]:
        """Voting weight by validator."""
        return {member.index: member.stake for member in self.validators.members}

    def member(self, index: int) -> Validator | None:
        """A validator, if it is a member."""
        return self.validators.by_index.get(index)


def engine_epoch(genesis: Genesis, height: int) -> int:
    """The epoch of the block that follows an executed height."""
    return genesis.parameters.epoch_of(height + 1)


def last_height(genesis: Genesis, epoch: int) -> int | None:
    """Of an epoch; None if it lasts for ever."""
    return epochs.last_height(epoch, genesis.parameters.epoch_blocks)


def members_of(ledger: Ledger, genesis: Genesis, height: int) -> EpochMembers:
    """The members of the epoch whose blocks follow a ledger at this height. Raises StoreError."""
    if not genesis.parameters.epoch_blocks:
        return EpochMembers(genesis.validator_set(), None)
    epoch = engine_epoch(genesis, height)
    validators, following = ledger.validator_set(epoch), ledger.validator_set(epoch + 1)
    if validators is None or following is None:
        raise StoreError(
            f"the ledger at height {height} does not know the validators of epochs {epoch} and "
            f"{epoch + 1}; restore this home from a snapshot"
        )
    return EpochMembers(validators, following)


def contacts_of(ledger: Ledger, genesis: Genesis) -> tuple[Contact, ...]:
    """Everyone whom the ledger gives an address."""
    if not genesis.parameters.epoch_blocks:
        return tuple(
            Contact(member.index, member.address, member.certificate)
            for member in genesis.validators
        )
    return ledger.contacts()
