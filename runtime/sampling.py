"""Public-seed sampling: the rule by which a seed and raw logits give a token. It is part of the
protocol.

Given float32 logits l of the whole vocabulary, an output position p (0 for the first output
token), a 32-byte seed and a sampling rule, all arithmetic below in IEEE double in the order
written, with m the greatest logit, S the sum of exp(l[i] - m) over i in order, and N = m + ln S:

1. Candidates are the K = 64 tokens of greatest logit, in descending order; of equal logits the
   lower id comes first. A smaller vocabulary is a candidate whole. While p < min_tokens the model's
   end tokens are left out before the 64 are chosen.
2. temperature_milli = 0: the token is the first candidate. The rest applies to temperature_milli =
   t > 0.
3. The counted logit of token j is c[j] = l[j]; with logprob_ceiling_milli = C > 0 it is the lesser
   of l[j] and N - C / 1000, the logit at which the raw log-probability is -C / 1000. The scaled
   logit is a[j] = c[j] * (1000 / t).
4. Survivors of top_k are the first top_k candidates (all if top_k is 0). Survivors of top_p: with
   w[i] = exp(a[i] - a[first]) and W their sum over the survivors of top_k, added in order,
   candidate i survives if (sum of w before i) * 1000 < W * top_p_milli; the first always does
   (top_p_milli 0 is 1000).
5. The noise of token j is g = -ln(-ln u), u = (2 n + 1) / 2^53, n = word0 * 2^20 + floor(word1 /
   2^12), with word0 and word1 the first output words of Philox4x32-10 with key (seed[0:4],
   seed[4:8]) and counter (j, p, seed[8:12], seed[12:16]), seed words little-endian. u is never 0
   or 1. Bytes 16 to 31 of the seed are not used.
6. The token is the survivor of greatest a[j] + g; of equal ones the lower id.

That is a draw from the softmax of the survivors' scaled logits (the Gumbel-max trick), and anyone
can replay it.

The ceiling is on log-probabilities because logits are defined only up to a constant for each row:
two engines need not agree on it, and who has log-probabilities in place of logits (a vLLM prefill)
has none. The raw log-probability is the logit with that constant fixed, N = 0. The order of step 1
is that of raw logits, so tokens at the ceiling keep their ranks, and lose only their lead.

The log-probability of a token is raw: ln softmax over the whole vocabulary at temperature 1, end
tokens and all, that is (l[j] - m) - ln S, rounded to units of 2^-20 nats (halves up) and kept
within -(2^31 - 1) and 0.

How a verifier judges a claimed token by this rule is told in `runtime.replay`.
"""

from collections.abc import Collection

import numpy as np

from runtime.engine import SamplingRule
from runtime.kernels import helper, kernel
from runtime.maths import exp64, log64
from runtime.philox import philox4x32

CANDIDATES = 64
"""K, fixed by the protocol."""
LOGPROB_UNITS_PER_NAT = 1 << 20
LOGPROB_LOWEST = -((1 << 31) - 1)
MARGIN_CLIP = 1 << 24
"""No single margin or distance counts for more than this, 16 nats."""

TEMPERATURE, TOP_K, TOP_P, SEED, CEILING, MIN_TOKENS = 0, 1, 2, 3, 7, 8
"""Where a rule as the kernels take it holds what; SEED is the first of four words."""
RULE_HEAD = 9
"""Words of a rule before the ids of the model's end tokens, of which there may be any number."""

_UNITS = float(LOGPROB_UNITS_PER_NAT)
_LOWEST = float(LOGPROB_LOWEST)
_UNIT_INTERVAL = 2.0**-53
_MILLI = 1000.0
_SUM_BLOCK = 256
"""Exponentials computed ahead of adding them, so that they vectorise; no influence on the sum."""
_SCAN_BLOCK = 256
"""Logits looked at together when candidates are selected; no influence on which they are."""


@helper
def noise(token_id: int, position: int, seed_words: np.ndarray) -> float:
    """Step 5 of the rule; seed_words is uint64[4], the first four seed words."""
    word_0, word_1, _, _ = philox4x32(
        seed_words[0],
        seed_words[1],
        np.uint64(token_id),
        np.uint64(position),
        seed_words[2],
        seed_words[3],
    )
    fraction = (np.int64(word_0) << 20) | (np.int64(word_1) >> 12)
    uniform = float(2 * fraction + 1) * _UNIT_INTERVAL
    return -log64(-log64(uniform))


@helper
def log_sum_exp(logits: np.ndarray, greatest: float) -> float:
    """ln of the sum of e^(logit - greatest) over float32[vocabulary], added in order."""
    terms = np.empty(_SUM_BLOCK, np.float64)
    total = 0.0
    for start in range(0, logits.size, _SUM_BLOCK):
        # A slice, because an index that numba can't see to be positive does not vectorise.
        block = logits[start : start + _SUM_BLOCK]
        for index in range(block.size):
            terms[index] = exp64(float(block[index]) - greatest)
        for index in range(block.size):
            total += terms[index]
    return log64(total)


@helper
def fixed_logprob(logit: float, greatest: float, log_total: float) -> int:
    """A raw log-probability in 2^-20 nats."""
    scaled = np.floor(((logit - greatest) - log_total) * _UNITS + 0.5)
    return int(min(max(scaled, _LOWEST), 0.0))


@helper
def select_greatest(logits: np.ndarray, ids: np.ndarray, values: np.ndarray) -> int:
    """Fill ids (int64[n]) and values (float64[n]) with the tokens of greatest logit and theirs, in
    the order of step 1; returns their number, below n for a small vocabulary only."""
    count = 0
    threshold = np.float32(-np.inf)
    for start in range(0, logits.size, _SCAN_BLOCK):
        block = logits[start : start + _SCAN_BLOCK]
        if count == ids.size:
            # Most blocks hold nothing above the least candidate; counting vectorises.
            above = 0
            for value in block:
                above += value > threshold
            if above == 0:
                continue
        for offset in range(block.size):
            value = block[offset]
            if count == ids.size:
                if not value > threshold:
                    continue
                place = count - 1
            else:
                place = count
                count += 1
            while place > 0 and value > values[place - 1]:
                ids[place] = ids[place - 1]
                values[place] = values[place - 1]
                place -= 1
            ids[place] = start + offset
            values[place] = value
            threshold = np.float32(values[count - 1])
    return count


@helper
def words_of(rule: np.ndarray) -> np.ndarray:
    """uint64[4]: a rule's seed words as `noise` takes them."""
    words = np.empty(4, np.uint64)
    for word in range(4):
        words[word] = np.uint64(rule[SEED + word])
    return words


@helper
def left_out(rule: np.ndarray, position: int) -> np.ndarray:
    """The tokens that are no candidates at this output position, int64[any]; may hold -1."""
    return rule[RULE_HEAD:] if position < rule[MIN_TOKENS] else rule[:0]


@helper
def contains(token_ids: np.ndarray, token_id: int) -> bool:
    """Whether one of int64[any] is this id."""
    found = False
    for other in token_ids:
        found = found or other == token_id
    return found


@helper
def leave_out(ids: np.ndarray, values: np.ndarray, count: int, without: np.ndarray) -> int:
    """Take these tokens out of the first `count`, which stay in order; returns how many stay."""
    if without.size == 0:
        return count
    kept = 0
    for index in range(count):
        if not contains(without, ids[index]):
            ids[kept] = ids[index]
            values[kept] = values[index]
            kept += 1
    return kept


@helper
def highest_counted(normaliser: float, rule: np.ndarray) -> float:
    """Step 3: the greatest logit that counts, given N; infinite without a ceiling."""
    highest: float = np.inf
    if rule[CEILING] > 0:
        highest = normaliser - rule[CEILING] / _MILLI
    return highest


@helper
def count_survivors(
    values: np.ndarray, count: int, scale: float, highest: float, rule: np.ndarray
) -> int:
    """Step 4: how many of the first candidates survive, given their logits in order."""
    if 0 < rule[TOP_K] < count:
        count = rule[TOP_K]
    top_p_milli = rule[TOP_P]
    if top_p_milli == 0 or top_p_milli >= 1000:
        return count
    first = min(values[0], highest) * scale
    total = 0.0
    for index in range(count):
        total += exp64(min(values[index], highest) * scale - first)
    before = 0.0
    for index in range(count):
        if index > 0 and not before * _MILLI < total * top_p_milli:
            return index
        before += exp64(min(values[index], highest) * scale - first)
    return count


@helper
def choose(
    ids: np.ndarray,
    values: np.ndarray,
    count: int,
    position: int,
    rule: np.ndarray,
    highest: float,
) -> int:
    """The token that the first `count` candidates, in order, give.

    `values` are their logits, or anything that differs from them, and so does `highest`
    (`highest_counted`), by one constant.
    """
    best_id: int = ids[0]
    if rule[TEMPERATURE] == 0:
        return best_id
    words = words_of(rule)
    scale = _MILLI / rule[TEMPERATURE]
    survivors = count_survivors(values, count, scale, highest, rule)
    best = min(values[0], highest) * scale + noise(best_id, position, words)
    for index in range(1, survivors):
        token_id = ids[index]
        value = min(values[index], highest) * scale + noise(token_id, position, words)
        if value > best or (value == best and token_id < best_id):
            best = value
            best_id = token_id
    return best_id


@kernel("void(float32[:, ::1], int64, int64[::1], int64[::1], int64[::1])")
def sample_rows(
    logits: np.ndarray,
    first_position: int,
    rule: np.ndarray,
    token_ids: np.ndarray,
    logprobs: np.ndarray,
) -> None:
    """The token and its log-probability for each row of logits; row r is output position first +
    r. `rule` is what `rule_array` gives."""
    most = CANDIDATES + rule.size - RULE_HEAD
    all_ids, all_values = np.empty(most, np.int64), np.empty(most, np.float64)
    for row in range(logits.shape[0]):
        position = first_position + row
        without = left_out(rule, position)
        wanted = CANDIDATES + without.size
        ids, values = all_ids[:wanted], all_values[:wanted]
        count = select_greatest(logits[row], ids, values)
        greatest = values[0]
        log_total = log_sum_exp(logits[row], greatest)
        count = min(leave_out(ids, values, count, without), CANDIDATES)
        highest = highest_counted(greatest + log_total, rule)
        token_id = choose(ids, values, count, position, rule, highest)
        token_ids[row] = token_id
        logprobs[row] = fixed_logprob(float(logits[row, token_id]), greatest, log_total)


def seed_words(seed: bytes) -> np.ndarray:
    """uint64[4] of the seed's first 16 bytes as `noise` takes them."""
    return np.frombuffer(seed[:16], dtype="<u4").astype(np.uint64)


def rule_array(
    sampling: SamplingRule, seed: bytes, end_token_ids: Collection[int] = ()
) -> np.ndarray:
    """int64[RULE_HEAD + end tokens]: a rule with its seed as the kernels take it.

    End tokens are the model's; they may be left out where min_tokens is 0.
    """
    head = [sampling.temperature_milli, sampling.top_k, sampling.top_p_milli]
    head += [int(word) for word in seed_words(seed)]
    head += [sampling.logprob_ceiling_milli, sampling.min_tokens]
    ends = sorted(end_token_ids) if sampling.min_tokens else []
    return np.array(head + ends, np.int64)
