"""Where each validator stands: seated, waiting, leaving, jailed or gone; from which epoch on."""

import enum
from dataclasses import dataclass

from chain.execution import Ledger
from chain.records import Conviction, RegisteredValidator


class Standing(enum.StrEnum):
    """What a validator is to the epoch under way."""

    ACTIVE = "active"
    """It has a seat."""
    WAITING = "waiting"
    """A candidate without a seat: not elected yet, or others have more stake."""
    UNBONDING = "unbonding"
    """It wants no seat; its stake still stands for one it has or had."""
    JAILED = "jailed"
    """It is no candidate until it asks again; never, if it is convicted."""
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class ValidatorStanding:
    """One registered validator."""

    index: int
    registered: RegisteredValidator
    conviction: Conviction | None
    standing: Standing
    weight: int
    """In the epoch under way; a jailed or leaving one may still have some."""
    from_epoch: int | None
    """When it has a seat next, as far as sets are elected."""
    bonded: int
    unbonding: int


def standings(ledger: Ledger, start: int = 0, limit: int = 1 << 16) -> list[ValidatorStanding]:
    """Of up to so many validators from the id `start` on, in order of id."""
    convictions = ledger.convictions()
    kept = range(max(0, ledger.epoch - 2), ledger.epoch + 3)
    sets = [elected for epoch in kept if (elected := ledger.validator_set(epoch)) is not None]
    found: list[ValidatorStanding] = []
    for index, record in ledger.registered():
        if index < start:
            continue
        if len(found) == limit:
            break
        account = ledger.account(record.account)
        seats = [elected.epoch for elected in sets if index in elected.by_index]
        member = ledger.validators.by_index.get(index)
        conviction = convictions.get(index)
        if conviction is not None or record.jailed_until_epoch:
            standing = Standing.JAILED
        elif record.leaving:
            gone = not seats and not account.unbonding
            standing = Standing.LEFT if gone else Standing.UNBONDING
        else:
            standing = Standing.WAITING if member is None else Standing.ACTIVE
        found.append(
            ValidatorStanding(
                index=index,
                registered=record,
                conviction=conviction,
                standing=standing,
                weight=0 if member is None else member.stake,
                from_epoch=min((epoch for epoch in seats if epoch >= ledger.epoch), default=None),
                bonded=account.stake,
                unbonding=account.unbonding,
            )
        )
    return found
