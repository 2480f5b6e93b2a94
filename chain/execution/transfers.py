"""Transfers, and the collateral of accounts: staking, unstaking, unbonding, slashing."""

from assay.v1 import transactions_pb2 as pb
from chain.events import EventKind
from chain.execution import bonds, refusals
from chain.execution.scope import Scope
from chain.parameters import BASIS_POINTS
from chain.rejections import Rejection, RejectionReason
from chain.state import ACCOUNT_BYTES, INDEX_BYTES


def transfer(scope: Scope, sender: bytes, message: pb.Transfer) -> None:
    """Move balance to another account, which need not exist yet."""
    if len(message.to) != ACCOUNT_BYTES:
        raise Rejection(
            RejectionReason.BAD_ADDRESS,
            f"the receiver has {len(message.to)} bytes, an account has {ACCOUNT_BYTES}",
        )
    _require_amount(message.amount)
    scope.debit(sender, message.amount)
    scope.credit(message.to, message.amount)
    scope.emit(EventKind.TRANSFERRED, sender, other=message.to, amount=message.amount)


def stake(scope: Scope, sender: bytes, message: pb.Stake) -> None:
    """Move balance into the sender's stake."""
    _require_amount(message.amount)
    scope.debit(sender, message.amount)
    account = scope.account(sender)
    scope.put_account(sender, account._replace(stake=account.stake + message.amount))
    scope.emit(EventKind.STAKED, sender, amount=message.amount)


def unstake(scope: Scope, sender: bytes, message: pb.Unstake) -> None:
    """Start unbonding. A second unstake restarts the time for all that is unbonding."""
    _require_amount(message.amount)
    account = scope.account(sender)
    needed = stake_needed(scope, sender)
    if account.stake < message.amount + needed:
        raise Rejection(
            RejectionReason.INSUFFICIENT_STAKE,
            f"the stake is {account.stake} grain, open offers, verifying and validating need "
            f"{needed}: {message.amount} cannot leave; withdraw offers (capacity 0), say that you "
            "no longer verify, or leave the validators, first",
        )
    unbonding = account._replace(
        stake=account.stake - message.amount,
        unbonding=account.unbonding + message.amount,
        unbonding_until_ms=scope.timestamp_ms + scope.parameters.unbonding_ms,
    )
    scope.put_account(sender, unbonding)
    bonds.lock_unbonding(scope, sender)
    scope.emit(EventKind.UNSTAKED, sender, amount=message.amount)


def stake_needed(scope: Scope, account: bytes, verifying: bool = False) -> int:
    """What the account's open offers bind, over all models, its candidacy as a validator, and its
    word that it verifies; with `verifying` as if it had given that."""
    offers = scope.state.offers.ending(account)
    needed = sum(offer.capacity > 0 for _, offer in offers) * scope.parameters.stake_min_per_offer
    index = scope.validator_of(account)
    if index is None:
        return needed
    needed += bonds.stake_bound(scope, account)
    verifies = verifying or any(scope.state.verifiers.ending(index.to_bytes(INDEX_BYTES, "big")))
    return needed + verifies * scope.parameters.verifier_stake_min


def release_unbonded(scope: Scope, key: bytes) -> None:
    """Return unbonded stake, whose time has passed, to the balance."""
    account = scope.account(key)
    amount = account.unbonding
    if not amount or account.unbonding_until_ms > scope.timestamp_ms:
        return
    if not bonds.may_release(scope, key):
        return
    scope.put_account(
        key,
        account._replace(balance=account.balance + amount, unbonding=0, unbonding_until_ms=0),
    )
    scope.emit(EventKind.UNBONDED, key, amount=amount)


def take_collateral(scope: Scope, provider: bytes, amount: int) -> int:
    """Take up to `amount` from stake, then from what is unbonding; how much was taken."""
    account = scope.account(provider)
    from_stake = min(amount, account.stake)
    from_unbonding = min(amount - from_stake, account.unbonding)
    unbonding = account.unbonding - from_unbonding
    scope.put_account(
        provider,
        account._replace(
            stake=account.stake - from_stake,
            unbonding=unbonding,
            unbonding_until_ms=account.unbonding_until_ms if unbonding else 0,
        ),
    )
    return from_stake + from_unbonding


def slash(scope: Scope, provider: bytes, job: bytes) -> int:
    """Slash the governed share of a provider's collateral: part burned, the rest to the treasury.

    Returns the treasury's part. The requester gets none of it: nobody who may bribe a
    committee should gain by a FAIL.
    """
    account = scope.account(provider)
    due = (account.stake + account.unbonding) * scope.parameters.slash_bps // BASIS_POINTS
    return forfeit(scope, provider, job, due)


def forfeit(scope: Scope, key: bytes, job: bytes, amount: int) -> int:
    """Take up to `amount` of an account's collateral for good: part burned, the rest to the
    treasury, whose part is returned."""
    taken, to_treasury = burn_part(scope, take_collateral(scope, key, amount))
    if taken:
        scope.credit(scope.treasury, to_treasury)
        scope.emit(EventKind.SLASHED, key, other=job, amount=taken)
    return to_treasury


def take_slashed(scope: Scope, key: bytes, share_bps: int) -> tuple[int, int]:
    """Take a share of an account's collateral and burn the governed part of it.

    Returns what was taken, and what the treasury is owed of it.
    """
    account = scope.account(key)
    due = (account.stake + account.unbonding) * share_bps // BASIS_POINTS
    return burn_part(scope, take_collateral(scope, key, due))


def burn_part(scope: Scope, taken: int) -> tuple[int, int]:
    """Burn the governed part of what was slashed: (taken, what the treasury is owed of it)."""
    burned = taken * scope.parameters.slash_burn_bps // BASIS_POINTS
    scope.burn(burned)
    return taken, taken - burned


def _require_amount(amount: int) -> None:
    if amount == 0:
        raise refusals.amount_zero()
