"""The sampling rule on vLLM's numbers: choosing from rows of logits, scoring from a prefill.

vLLM returns the claimed token's log-probability and the 64 greatest of each row of a prefill, not
the row. That is all the rule needs, but for one case: which of several tokens that share the least
candidate's logit are candidates depends on their ids, and vLLM returns any of them. There the
claimed token counts as a candidate, and whatever else follows lies within the margin of a tie.
"""

import numpy as np

from runtime.kernels import helper, kernel
from runtime.sampling import (
    CANDIDATES,
    LOGPROB_LOWEST,
    LOGPROB_UNITS_PER_NAT,
    choose,
    margin_of,
    select_candidates,
)

RULE_WORDS = 7
"""temperature_milli, top_k, top_p_milli, then the four seed words."""
RETURNED = CANDIDATES + 1
"""Log-probabilities of a row of a prefill: the claimed token's, then the greatest in order."""

_UNITS = float(LOGPROB_UNITS_PER_NAT)
_LOWEST = float(LOGPROB_LOWEST)


@helper
def _fixed(logprob: float) -> int:
    return int(min(max(np.floor(logprob * _UNITS + 0.5), _LOWEST), 0.0))


@kernel("void(float32[:, ::1], int64[::1], int64[::1], int64[:, ::1], int64[::1])")
def choose_rows(
    logits: np.ndarray,
    rows: np.ndarray,
    positions: np.ndarray,
    rules: np.ndarray,
    token_ids: np.ndarray,
) -> None:
    """The token of each of these rows of logits, float32[any, vocabulary].

    `rows` and `positions` (output positions) are int64[n], `rules` int64[n, RULE_WORDS]; fills
    token_ids, int64[n].
    """
    ids, values = np.empty(CANDIDATES, np.int64), np.empty(CANDIDATES, np.float64)
    words = np.empty(4, np.uint64)
    for index in range(rows.size):
        count = select_candidates(logits[rows[index]], ids, values)
        for word in range(4):
            words[word] = np.uint64(rules[index, 3 + word])
        token_ids[index], _, _ = choose(
            ids,
            values,
            count,
            positions[index],
            words,
            rules[index, 0],
            rules[index, 1],
            rules[index, 2],
        )


@kernel(
    "void(int64[:, ::1], float32[:, ::1], int64, uint64[::1], int64, int64, int64, int64[:, ::1])"
)
def replay_returned(
    token_ids: np.ndarray,
    logprobs: np.ndarray,
    first_position: int,
    seed_words: np.ndarray,
    temperature_milli: int,
    top_k: int,
    top_p_milli: int,
    out: np.ndarray,
) -> None:
    """What `runtime.sampling.replay_rows` gives, from what vLLM returned of each row.

    token_ids int64[rows, n] and logprobs float32[rows, n]: the claimed token, then the n - 1 most
    likely in descending order. out is int64[rows, 5].
    """
    count = token_ids.shape[1] - 1
    ids, values = np.empty(count, np.int64), np.empty(count, np.float64)
    for row in range(token_ids.shape[0]):
        claimed = token_ids[row, 0]
        own = float(logprobs[row, 0])
        for index in range(count):
            # In descending order already, but for equal ones, of which the lower id comes first.
            token_id, value = token_ids[row, index + 1], float(logprobs[row, index + 1])
            place = index
            while place > 0 and values[place - 1] == value and ids[place - 1] > token_id:
                ids[place] = ids[place - 1]
                values[place] = values[place - 1]
                place -= 1
            ids[place] = token_id
            values[place] = value
        token_id, survivors, best = choose(
            ids,
            values,
            count,
            first_position + row,
            seed_words,
            temperature_milli,
            top_k,
            top_p_milli,
        )
        rank = 0
        while rank < count and ids[rank] != claimed:
            rank += 1
        runner_up = values[1] if rank == 0 and count > 1 else values[0]
        out[row, 0] = token_id
        out[row, 1] = np.int64(
            margin_of(
                claimed,
                own,
                first_position + row,
                seed_words,
                temperature_milli,
                best,
                values[survivors - 1],
                rank < survivors,
            )
        )
        out[row, 2] = _fixed(own)
        out[row, 3] = _fixed(runner_up)
        out[row, 4] = 1 if rank < count or own >= values[count - 1] else 0
