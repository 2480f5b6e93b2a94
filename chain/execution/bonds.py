"""What being a validator does to its account's stake: how much is bound, and until when.

One stake serves all offices. What a validator unstakes goes on standing for the sets it was elected
to: it stays where a slash finds it as long as evidence is heard against them.
"""

from chain.execution.scope import Scope
from chain.records import RegisteredValidator
from chain.state import INDEX_BYTES


def put_validator(scope: Scope, index: int, record: RegisteredValidator) -> None:
    """Store a registration."""
    scope.state.put(scope.state.validators, index.to_bytes(INDEX_BYTES, "big"), record)


def may_release(scope: Scope, account: bytes) -> bool:
    """Whether what the account unbonds is held by no set it was, is or will be a member of."""
    index = scope.validator_of(account)
    if index is None or not scope.parameters.epoch_blocks:
        return True
    if scope.epoch < scope.validator(index).locked_until_epoch:
        return False
    stake = scope.stake_of(account)
    return all(elected.weight({index}) <= stake for elected in scope.sets.values())


def lock_unbonding(scope: Scope, account: bytes) -> None:
    """A validator unstakes: what goes is held for `unbonding_epochs`."""
    index = scope.validator_of(account)
    if index is not None and scope.parameters.epoch_blocks:
        until = scope.epoch + scope.parameters.unbonding_epochs
        put_validator(scope, index, scope.validator(index)._replace(locked_until_epoch=until))


def stake_bound(scope: Scope, account: bytes) -> int:
    """What the account's candidacy binds of its stake."""
    index = scope.validator_of(account)
    if index is None or not scope.parameters.epoch_blocks:
        return 0
    wants = not scope.validator(index).leaving and scope.conviction(index) is None
    return scope.parameters.validator_stake_min if wants else 0
