"""How a verifier judges a claimed token by the rule of `runtime.sampling`. Part of the protocol.

Two honest engines differ a little in their logits. So a claimed token is not asked whether it is
the rule's, but how far the verifier's numbers are from ones by which it would be: its *margin*, in
nats of scaled logits. That must hold at the edge of top_k and top_p too, where a token survives at
one engine and not at the other. With a the scaled logits of `runtime.sampling` (step 3), b the same
without the ceiling (they decide the order), k the number of top_k's survivors, w and W as in step
4, P = top_p_milli:

1. The survivors are the first n candidates, for some n from 1 to k. Cutting at n costs e(n): 0 for
   the rule's own n; for another one as much as top_p lacks to it in log-odds. With o(n) = ln(w of
   the first n / w of the rest of k) - ln(P / (1000 - P)): a greater n costs o(n - 1), a smaller one
   -o(n). Where top_p is off only n = k can be.
2. If the claimed token is none of the first n, it costs what b lacks of it to the last of them.
3. Each of the first n whose noisy score a + g is greater than the claimed token's costs the
   difference, or, if that is less, what b of it exceeds the first token left out (a candidate
   beyond n, or the 65th token): by so much it is itself at the edge.
4. The margin is the greatest of these costs, at the n at which that is least.

At temperature 0 it is the first candidate's logit minus the claimed token's. A token that
min_tokens forbids at its position counts the clip. Margins are rounded to units of 2^-20 nats
(halves up) and clipped at 2^24 units.

Honest: if two engines' scaled logits differ by at most d at each token (where there is a ceiling,
their raw log-probabilities times 1000 / t), no claim of one has a margin above 2 d at the other.
For sums of the n greatest weights, the order statistics of b, the lesser of a logit and the
ceiling, and noisy scores all move by at most d (the sums in their logarithms), so each difference
above moves by at most 2 d, and was 0 where the claim was made.
Dishonest: a token that passes at a tolerance is within it in each single respect, its score, its
place and the edge. A likelier token with a better score is set aside only for its own nearness to
where the survivors end, never for the claimed one's.
"""

import numpy as np

from runtime.kernels import helper, kernel
from runtime.maths import exp64, log64
from runtime.sampling import (
    CANDIDATES,
    LOGPROB_UNITS_PER_NAT,
    MARGIN_CLIP,
    RULE_HEAD,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    choose,
    contains,
    count_survivors,
    fixed_logprob,
    highest_counted,
    leave_out,
    left_out,
    log_sum_exp,
    noise,
    select_greatest,
    words_of,
)

REPLAY_COLUMNS = 5
"""Of a replayed position: the rule's token, the margin, own log-probability of the claimed token,
own log-probability of the runner-up, and whether the claimed token is among the candidates."""

_UNITS = float(LOGPROB_UNITS_PER_NAT)
_CLIP = float(MARGIN_CLIP)
_MILLI = 1000.0


@helper
def _fill_edge_costs(
    scaled: np.ndarray, kept: int, survivors: int, top_p_milli: int, costs: np.ndarray
) -> None:
    """e(n) of the protocol to costs[n] for n from 1 to kept, given the scaled logits in order."""
    costs[1 : kept + 1] = np.inf
    costs[survivors] = 0.0
    if top_p_milli == 0 or top_p_milli >= 1000:
        return
    asked = log64(float(top_p_milli)) - log64(_MILLI - top_p_milli)
    # From the least up: the rest may be far too small to be had as a difference.
    rest = np.empty(kept + 1, np.float64)
    rest[kept] = 0.0
    for index in range(kept - 1, -1, -1):
        rest[index] = rest[index + 1] + exp64(scaled[index] - scaled[0])
    before = 0.0
    for count in range(1, kept):
        before += exp64(scaled[count - 1] - scaled[0])
        if not rest[count] > 0.0:
            return
        excess = (log64(before) - log64(rest[count])) - asked
        if count < survivors:
            costs[count] = max(-excess, 0.0)
        else:
            costs[count + 1] = max(excess, 0.0)


@helper
def _margin(
    claimed: int,
    value: float,
    ids: np.ndarray,
    values: np.ndarray,
    found: int,
    position: int,
    rule: np.ndarray,
    highest: float,
) -> float:
    """The margin in nats of a claimed token that is not the rule's, at temperature above 0."""
    words = words_of(rule)
    scale = _MILLI / rule[TEMPERATURE]
    kept = min(found, CANDIDATES)
    survivors = count_survivors(values, kept, scale, highest, rule)
    if 0 < rule[TOP_K] < kept:
        kept = rule[TOP_K]
    scaled, lead = np.empty(kept, np.float64), np.empty(kept, np.float64)
    own = min(value, highest) * scale + noise(claimed, position, words)
    rank = kept
    for index in range(kept):
        scaled[index] = min(values[index], highest) * scale
        lead[index] = (scaled[index] + noise(ids[index], position, words)) - own
        if ids[index] == claimed:
            rank = index
    costs = np.empty(kept + 1, np.float64)
    _fill_edge_costs(scaled, kept, survivors, rule[TOP_P], costs)
    margin = np.inf
    for count in range(1, kept + 1):
        cost = costs[count]
        if rank >= count:
            cost = max(cost, (values[count - 1] - value) * scale)
        outside = values[count] if count < found else -np.inf
        for index in range(count):
            if lead[index] > cost:
                cost = max(cost, min(lead[index], (values[index] - outside) * scale))
        margin = min(margin, cost)
    return margin


@helper
def judge_token(
    claimed: int,
    value: float,
    ids: np.ndarray,
    values: np.ndarray,
    found: int,
    position: int,
    rule: np.ndarray,
    highest: float,
) -> tuple[int, int]:
    """(the rule's token, the claimed token's margin).

    `value` is the claimed token's logit; ids and values hold the first `found` tokens in order,
    those left out that are no candidates here: 65, or the whole vocabulary if it is smaller.
    """
    token_id = choose(ids, values, min(found, CANDIDATES), position, rule, highest)
    if claimed == token_id:
        return token_id, 0
    if contains(left_out(rule, position), claimed):
        return token_id, MARGIN_CLIP
    if rule[TEMPERATURE] == 0:
        margin = values[0] - value
    else:
        margin = _margin(claimed, value, ids, values, found, position, rule, highest)
    units = np.floor(margin * _UNITS + 0.5)
    return token_id, int(units) if units < _CLIP else MARGIN_CLIP


@kernel("void(float32[:, ::1], int64, int64[::1], int64[::1], int64[:, ::1])")
def replay_rows(
    logits: np.ndarray,
    first_position: int,
    rule: np.ndarray,
    claimed: np.ndarray,
    out: np.ndarray,
) -> None:
    """Compare claimed token ids (each within the vocabulary) with the rule, row by row.

    `rule` is what `runtime.sampling.rule_array` gives; row r is output position first + r. out is
    int64[rows, REPLAY_COLUMNS]. The runner-up is the token of greatest logit other than the claimed
    one, the lower id of equal ones, end tokens among them whatever min_tokens says.
    """
    most = CANDIDATES + 1 + rule.size - RULE_HEAD
    all_ids, all_values = np.empty(most, np.int64), np.empty(most, np.float64)
    for row in range(logits.shape[0]):
        position = first_position + row
        without = left_out(rule, position)
        wanted = CANDIDATES + 1 + without.size
        ids, values = all_ids[:wanted], all_values[:wanted]
        found = select_greatest(logits[row], ids, values)
        greatest = values[0]
        runner_up = values[1] if ids[0] == claimed[row] and found > 1 else greatest
        log_total = log_sum_exp(logits[row], greatest)
        found = min(leave_out(ids, values, found, without), CANDIDATES + 1)
        claimed_value = float(logits[row, claimed[row]])
        highest = highest_counted(greatest + log_total, rule)
        out[row, 0], out[row, 1] = judge_token(
            claimed[row], claimed_value, ids, values, found, position, rule, highest
        )
        out[row, 2] = fixed_logprob(claimed_value, greatest, log_total)
        out[row, 3] = fixed_logprob(runner_up, greatest, log_total)
        out[row, 4] = contains(ids[: min(found, CANDIDATES)], claimed[row])
