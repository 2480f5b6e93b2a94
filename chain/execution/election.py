"""Who is in the next validator set: a pure function of candidates, stakes and the set before.

- The candidates with the most stake are wanted, `validators_max` of them; of equals the lower id.
- Weight goes, and comes, by at most `churn_max_bps` of the set's stake from one epoch to the next
  (rounded up): who cannot go or come at once does so in part, and the rest an epoch later. So
  quorums of two sets that follow each other overlap, and whoever wants to leave, does.
- A convicted validator goes at once, whatever it weighs, and counts against what may go.
- A set is never empty: if nobody would be left, the old one goes on.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from chain.parameters import BASIS_POINTS, Parameters
from consensus.values import Validator, ValidatorSet


def elect(
    registered: Mapping[int, Validator],
    eligible: AbstractSet[int],
    convicted: AbstractSet[int],
    before: ValidatorSet,
    parameters: Parameters,
) -> ValidatorSet:
    """The set of the epoch after `before`.

    `registered` holds, for everybody registered, the newest keys and all its stake; `eligible` are
    those of them who may have a seat and want it.
    """
    held = {member.index: member.stake for member in before.members}
    weights = {index: stake for index, stake in held.items() if index not in convicted}
    if not weights:
        return ValidatorSet(epoch=before.epoch + 1, members=before.members)
    wanted = _wanted(registered, eligible - convicted, parameters.validators_max)
    may_go = _share(before.stake_total, parameters) - sum(
        stake for index, stake in held.items() if index in convicted
    )
    may_come = _share(sum(weights.values()), parameters)
    weights = _let_go(weights, wanted, max(0, may_go))
    weights = _let_come(weights, wanted, may_come, parameters.validators_max)
    if not weights:
        return ValidatorSet(epoch=before.epoch + 1, members=before.members)
    members = tuple(_with_weight(registered[index], weights[index]) for index in sorted(weights))
    return ValidatorSet(epoch=before.epoch + 1, members=members)


def _wanted(
    registered: Mapping[int, Validator], eligible: AbstractSet[int], count: int
) -> dict[int, int]:
    """Stakes of the candidates that a set without bounds on its change would have, in order."""
    ranked = sorted((-registered[index].stake, index) for index in eligible)
    return {index: -stake for stake, index in ranked[:count]}


def _let_go(weights: dict[int, int], wanted: Mapping[int, int], may_go: int) -> dict[int, int]:
    """Weights less what goes: first whole members, then parts of who stays; lower ids first."""
    after = dict(weights)
    for index in sorted(weights, key=lambda index: (index in wanted, index)):
        goes = min(may_go, max(0, weights[index] - wanted.get(index, 0)))
        may_go -= goes
        after[index] -= goes
    return {index: weight for index, weight in after.items() if weight}


def _let_come(
    weights: dict[int, int], wanted: Mapping[int, int], may_come: int, members_max: int
) -> dict[int, int]:
    """Weights and what comes, most stake first; somebody new only where a seat is free."""
    after = dict(weights)
    for index, stake in wanted.items():
        if index not in after and len(after) >= members_max:
            continue
        comes = min(may_come, max(0, stake - after.get(index, 0)))
        may_come -= comes
        if comes:
            after[index] = after.get(index, 0) + comes
    return after


def _share(stake: int, parameters: Parameters) -> int:
    return -(-stake * parameters.churn_max_bps // BASIS_POINTS)


def _with_weight(validator: Validator, weight: int) -> Validator:
    return Validator(
        index=validator.index,
        signing_key=validator.signing_key,
        vrf_key=validator.vrf_key,
        account=validator.account,
        stake=weight,
    )
