"""Pairs of engine profiles: who can verify whom, and by which thresholds.

A *profile* names an engine's arithmetic. A model is registered with a list of *calibrated pairs*
(provider's profile, verifier's profile), each with what an honest result may score there. A result
of one profile can be verified with another only if the model has that pair: nothing is derived
from other pairs, and the order matters.

`thresholds_for` is the one place that says which thresholds count. Registrations never change, so
what it says of a job holds for the job's whole life.
"""

from collections.abc import Sequence
from itertools import pairwise

from assay.v1 import transactions_pb2 as pb
from chain.records import (
    BET_EDGES_MAX,
    PAIRS_MAX,
    PROFILE_BYTES_MAX,
    Bets,
    BettingTable,
    Bound,
    CalibratedPair,
    Model,
    Thresholds,
)
from chain.rejections import Rejection, RejectionReason

ARBITER_PROFILE = "reference-float32-1"
"""The engine whose bits are pinned: what it finds is the same on every machine."""
LOG_E_VALUE_MAX = 16 << 20
"""One job alone must not eject anybody, nor undo what a hundred have shown."""
_FIRST_CHARACTER, _LAST_CHARACTER = "!", "~"


def pair_for(model: Model, provider_profile: str, verifier_profile: str) -> CalibratedPair | None:
    """The pair of two profiles; None if nobody measured it."""
    for pair in model.pairs:
        if pair.provider_profile == provider_profile and pair.verifier_profile == verifier_profile:
            return pair
    return None


def thresholds_for(model: Model, provider_profile: str, verifier_profile: str) -> Thresholds | None:
    """What an honest result of one profile may score with another; None if nobody measured it."""
    pair = pair_for(model, provider_profile, verifier_profile)
    return None if pair is None else pair.thresholds


def judged_by(model: Model, provider_profile: str, verifier_profile: str) -> Thresholds:
    """`thresholds_for` where a pair must exist, because a committee was drawn by it."""
    thresholds = thresholds_for(model, provider_profile, verifier_profile)
    if thresholds is None:
        raise RuntimeError(
            f"a verifier of {verifier_profile} sits over a result of {provider_profile}, for which "
            f"model {model.name} has no pair"
        )
    return thresholds


def verifier_profiles(model: Model, provider_profile: str | None = None) -> tuple[str, ...]:
    """Profiles that may verify a result of one profile, or of any (None); rising."""
    return tuple(
        sorted(
            {
                pair.verifier_profile
                for pair in model.pairs
                if provider_profile in (None, pair.provider_profile)
            }
        )
    )


def checked_pairs(messages: Sequence[pb.CalibratedPair]) -> tuple[CalibratedPair, ...]:
    """The pairs of a registration. Raises Rejection for any list but the one way to write it."""
    if not 1 <= len(messages) <= PAIRS_MAX:
        raise _bad(f"{len(messages)} calibrated pairs, needs 1 to {PAIRS_MAX}: calibrate the model")
    for index, message in enumerate(messages):
        for name in ("provider_profile", "verifier_profile"):
            if not is_profile(getattr(message, name)):
                raise _bad(
                    f"pairs[{index}].{name} must be 1 to {PROFILE_BYTES_MAX} printable ASCII "
                    "characters without blanks"
                )
        if not message.HasField("thresholds"):
            raise _bad(f"pairs[{index}] has no thresholds: calibrate the pair first")
        for table in (message.bets.margin, message.bets.distance):
            if len(table.edges) > BET_EDGES_MAX or len(table.log_e_values) > BET_EDGES_MAX + 1:
                raise _bad(f"pairs[{index}].bets: at most {BET_EDGES_MAX} edges in a table")
    pairs = tuple(pair_record(message) for message in messages)
    for index, pair in enumerate(pairs):
        flaw = bets_flaw(pair.bets)
        if flaw is not None:
            raise _bad(f"pairs[{index}].bets: {flaw}; take them from a calibration report")
    for index, (before, after) in enumerate(pairwise(map(order_of, pairs)), 1):
        if before >= after:
            raise _bad(
                f"pairs[{index}] does not lie after the one before it: list pairs in order of "
                "provider_profile, then verifier_profile, each once"
            )
    return pairs


def is_profile(name: str) -> bool:
    """Whether this may name a profile: short, and the same to every eye and every sort."""
    return 1 <= len(name) <= PROFILE_BYTES_MAX and all(
        _FIRST_CHARACTER <= character <= _LAST_CHARACTER for character in name
    )


def order_of(pair: CalibratedPair) -> tuple[str, str]:
    """By this the pairs of a model rise."""
    return pair.provider_profile, pair.verifier_profile


def pair_record(message: pb.CalibratedPair) -> CalibratedPair:
    """A pair as the state keeps it."""
    given = message.thresholds
    return CalibratedPair(
        provider_profile=message.provider_profile,
        verifier_profile=message.verifier_profile,
        thresholds=Thresholds(
            mismatch_bound=_bound_record(given.mismatch_bound),
            margin_max=given.margin_max,
            margin_bound=_bound_record(given.margin_bound),
            distance_max=given.distance_max,
            distance_bound=_bound_record(given.distance_bound),
            outside_bound=_bound_record(given.outside_bound),
            fingerprint_tolerance=given.fingerprint_tolerance,
        ),
        bets=Bets(_table_record(message.bets.margin), _table_record(message.bets.distance)),
    )


def pair_message(pair: CalibratedPair) -> pb.CalibratedPair:
    """A pair as an operation or a view carries it."""
    kept = pair.thresholds
    return pb.CalibratedPair(
        provider_profile=pair.provider_profile,
        verifier_profile=pair.verifier_profile,
        thresholds=pb.Thresholds(
            mismatch_bound=_bound_message(kept.mismatch_bound),
            margin_max=kept.margin_max,
            margin_bound=_bound_message(kept.margin_bound),
            distance_max=kept.distance_max,
            distance_bound=_bound_message(kept.distance_bound),
            outside_bound=_bound_message(kept.outside_bound),
            fingerprint_tolerance=kept.fingerprint_tolerance,
        ),
        bets=None
        if pair.bets.idle
        else pb.Bets(
            margin=_table_message(pair.bets.margin), distance=_table_message(pair.bets.distance)
        ),
    )


def bets_flaw(bets: Bets) -> str | None:
    """What is wrong with tables of bets, if anything."""
    for name, table in (("margin", bets.margin), ("distance", bets.distance)):
        edges, logs = table.edges, table.log_e_values
        if len(edges) > BET_EDGES_MAX or len(logs) != len(edges) + 1:
            return f"{name} has {len(edges)} edges (at most {BET_EDGES_MAX}) and {len(logs)} bins"
        if any(before >= after for before, after in pairwise(edges)):
            return f"the edges of {name} do not rise"
        if max(map(abs, logs)) > LOG_E_VALUE_MAX:
            return f"a log_e_value of {name} is beyond {LOG_E_VALUE_MAX}, which is e^16"
        if max(logs) > 0 and min(logs) >= 0:
            return f"{name} never loses: no honest provider could stand that"
    return None


def _table_record(given: pb.BettingTable) -> BettingTable:
    return BettingTable(tuple(given.edges), tuple(given.log_e_values) or (0,))


def _table_message(kept: BettingTable) -> pb.BettingTable:
    return pb.BettingTable(edges=kept.edges, log_e_values=kept.log_e_values)


def _bound_record(given: pb.Bound) -> Bound:
    return Bound(given.base, given.rate)


def _bound_message(kept: Bound) -> pb.Bound:
    return pb.Bound(base=kept.base, rate=kept.rate)


def _bad(detail: str) -> Rejection:
    return Rejection(RejectionReason.BAD_MODEL, detail)
