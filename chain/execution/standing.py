"""A provider's standing: one integer that its last jobs make, and that weighs in assignment.

It rises by a part of what is missing with every verified job, and falls by a part of what there is
with every failed one, so that each job's weight fades with those after it: neither a long good
record nor an old mistake lasts for ever. Both steps are monotone: a better past never leads to a
worse standing.
"""

from chain.records import Offer

FULL = 1_000
NEW = FULL // 2
"""Of an offer that has no record yet."""
RISE_DIVISOR = 32
FALL_DIVISOR = 4


def risen(standing: int) -> int:
    """After a verified job."""
    return standing + -(-(FULL - standing) // RISE_DIVISOR)


def fallen(standing: int) -> int:
    """After a rejected job, or a deadline that was missed; at least 1, or nobody could rise."""
    return max(1, standing - -(-standing // FALL_DIVISOR))


def after_success(offer: Offer) -> Offer:
    """The offer with one more verified job."""
    return offer._replace(completed=offer.completed + 1, standing=risen(offer.standing))


def after_failure(offer: Offer) -> Offer:
    """The offer with one more job that was rejected or not answered."""
    return offer._replace(failed=offer.failed + 1, standing=fallen(offer.standing))


def after_appeal(offer: Offer) -> Offer:
    """The offer with one failure less, which was none, and one more verified job."""
    before = min(FULL, offer.standing * FALL_DIVISOR // (FALL_DIVISOR - 1))
    return after_success(offer._replace(failed=max(0, offer.failed - 1), standing=before))
