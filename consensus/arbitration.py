"""The ruling of an appeal: what the exact engine finds is the same integers wherever it runs.

So no verdicts are weighed. Scores that more than half of all arbiters have revealed are the fact;
who revealed others has not used the engine.
"""

from collections import Counter
from collections.abc import Sequence

from consensus.values import Scores


def fact(revealed: Sequence[Scores | None], quorum: int) -> Scores | None:
    """The scores of more than half of all arbiters, and of a quorum; None if there are none.

    `revealed` has one entry an arbiter, None for those who said nothing.
    """
    found = Counter(scores for scores in revealed if scores is not None)
    for scores, count in found.items():
        if 2 * count > len(revealed) and count >= quorum:
            return scores
    return None
