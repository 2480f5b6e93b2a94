"""The sampling rule on vLLM's numbers: choosing from rows of logits, scoring from a prefill.

vLLM returns the claimed token's log-probability and the greatest of each row of a prefill, not the
row. That is all the rule needs, but for one case: which of several tokens that share the least
returned logit are candidates depends on their ids, and vLLM returns any of them. There the claimed
token counts as a candidate, and whatever else follows lies within the margin of a tie.
"""

import numpy as np

from runtime.kernels import helper, kernel
from runtime.replay import judge_token
from runtime.sampling import (
    CANDIDATES,
    CEILING,
    LOGPROB_LOWEST,
    LOGPROB_UNITS_PER_NAT,
    RULE_HEAD,
    TEMPERATURE,
    choose,
    contains,
    highest_counted,
    leave_out,
    left_out,
    log_sum_exp,
    select_greatest,
)

_UNITS = float(LOGPROB_UNITS_PER_NAT)
_LOWEST = float(LOGPROB_LOWEST)


def greatest_needed(rule: np.ndarray, vocabulary: int) -> int:
    """How many of a row's greatest log-probabilities a replay by this rule needs: the candidates,
    the first token beyond them, and as many as may be left out."""
    return min(CANDIDATES + 1 + rule.size - RULE_HEAD, vocabulary)


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

    `rows` and `positions` (output positions) are int64[n], `rules` int64[n, any], each as
    `runtime.sampling.rule_array` gives it, filled up with -1; fills token_ids, int64[n].
    """
    most = CANDIDATES + rules.shape[1] - RULE_HEAD
    all_ids, all_values = np.empty(most, np.int64), np.empty(most, np.float64)
    for index in range(rows.size):
        rule, position, row = rules[index], positions[index], logits[rows[index]]
        without = left_out(rule, position)
        wanted = CANDIDATES + without.size
        ids, values = all_ids[:wanted], all_values[:wanted]
        count = select_greatest(row, ids, values)
        highest = np.inf
        # The sum over the vocabulary costs more than all the rest, so only where it is needed.
        if rule[CEILING] > 0 and rule[TEMPERATURE] > 0:
            highest = highest_counted(values[0] + log_sum_exp(row, values[0]), rule)
        count = min(leave_out(ids, values, count, without), CANDIDATES)
        token_ids[index] = choose(ids, values, count, position, rule, highest)


@kernel("void(int64[:, ::1], float32[:, ::1], int64, int64[::1], int64[:, ::1])")
def replay_returned(
    token_ids: np.ndarray,
    logprobs: np.ndarray,
    first_position: int,
    rule: np.ndarray,
    out: np.ndarray,
) -> None:
    """What `runtime.replay.replay_rows` gives, from what vLLM returned of each row.

    token_ids int64[rows, n] and logprobs float32[rows, n]: the claimed token, then the n - 1 =
    `greatest_needed` most likely in descending order. out is int64[rows, REPLAY_COLUMNS].
    """
    highest = highest_counted(0.0, rule)
    returned = token_ids.shape[1] - 1
    ids, values = np.empty(returned, np.int64), np.empty(returned, np.float64)
    for row in range(token_ids.shape[0]):
        position = first_position + row
        claimed = token_ids[row, 0]
        own = float(logprobs[row, 0])
        for index in range(returned):
            # In descending order already, but for equal ones, of which the lower id comes first.
            token_id, value = token_ids[row, index + 1], float(logprobs[row, index + 1])
            place = index
            while place > 0 and values[place - 1] == value and ids[place - 1] > token_id:
                ids[place] = ids[place - 1]
                values[place] = values[place - 1]
                place -= 1
            ids[place] = token_id
            values[place] = value
        runner_up = values[1] if ids[0] == claimed and returned > 1 else values[0]
        without = left_out(rule, position)
        found = min(leave_out(ids, values, returned, without), CANDIDATES + 1)
        out[row, 0], out[row, 1] = judge_token(
            claimed, own, ids, values, found, position, rule, highest
        )
        out[row, 2] = _fixed(own)
        out[row, 3] = _fixed(runner_up)
        candidates = min(found, CANDIDATES)
        tied = own >= values[candidates - 1] and not contains(without, claimed)
        out[row, 4] = contains(ids[:candidates], claimed) or tied
