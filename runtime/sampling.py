"""Public-seed sampling: the rule by which a seed and raw logits give a token. It is part of the
protocol.

Given float32 logits l of the whole vocabulary, an output position p (0 for the first output
token), a 32-byte seed and a sampling rule, all arithmetic below in IEEE double in the order
written:

1. Candidates are the K = 64 tokens of greatest logit, in descending order; of equal logits the
   lower id comes first. A smaller vocabulary is a candidate whole.
2. temperature_milli = 0: the token is the first candidate. The rest applies to temperature_milli =
   t > 0.
3. The scaled logit of token j is a[j] = l[j] * (1000 / t).
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

The log-probability of a token is raw: ln softmax over the whole vocabulary at temperature 1, that
is (l[j] - m) - ln(sum of exp(l[i] - m) over i in order), m the greatest logit, rounded to units of
2^-20 nats (halves up) and kept within -(2^31 - 1) and 0.
"""

import numpy as np

from runtime.kernels import helper, kernel
from runtime.maths import exp64, log64
from runtime.philox import philox4x32

CANDIDATES = 64
"""K, fixed by the protocol."""
LOGPROB_UNITS_PER_NAT = 1 << 20
LOGPROB_LOWEST = -((1 << 31) - 1)
MARGIN_CLIP = 1 << 24
"""No single margin or distance counts for more than this, 16 nats."""

_UNITS = float(LOGPROB_UNITS_PER_NAT)
_LOWEST = float(LOGPROB_LOWEST)
_CLIP = float(MARGIN_CLIP)
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
def select_candidates(logits: np.ndarray, ids: np.ndarray, values: np.ndarray) -> int:
    """Step 1: fill ids (int64[64]) and their logits, values (float64[64]); returns their number."""
    count = 0
    threshold = np.float32(-np.inf)
    for start in range(0, logits.size, _SCAN_BLOCK):
        block = logits[start : start + _SCAN_BLOCK]
        if count == CANDIDATES:
            # Most blocks hold nothing above the least candidate; counting vectorises.
            above = 0
            for value in block:
                above += value > threshold
            if above == 0:
                continue
        for offset in range(block.size):
            value = block[offset]
            if count == CANDIDATES:
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
def count_survivors(
    values: np.ndarray, count: int, scale: float, top_k: int, top_p_milli: int
) -> int:
    """Step 4: how many of the first candidates survive, given their logits in order."""
    if 0 < top_k < count:
        count = top_k
    if top_p_milli == 0 or top_p_milli >= 1000:
        return count
    first = values[0] * scale
    total = 0.0
    for index in range(count):
        total += exp64(values[index] * scale - first)
    before = 0.0
    for index in range(count):
        if index > 0 and not before * _MILLI < total * top_p_milli:
            return index
        before += exp64(values[index] * scale - first)
    return count


@helper
def choose(
    ids: np.ndarray,
    values: np.ndarray,
    count: int,
    position: int,
    seed_words: np.ndarray,
    temperature_milli: int,
    top_k: int,
    top_p_milli: int,
) -> tuple[int, int, float]:
    """(token, survivors, best noisy score) of the first `count` candidates, in order.

    `values` are their logits, or anything that differs from them by one constant.
    """
    if temperature_milli == 0:
        return ids[0], 1, values[0]
    scale = _MILLI / temperature_milli
    survivors = count_survivors(values, count, scale, top_k, top_p_milli)
    best_id = ids[0]
    best = values[0] * scale + noise(best_id, position, seed_words)
    for index in range(1, survivors):
        token_id = ids[index]
        value = values[index] * scale + noise(token_id, position, seed_words)
        if value > best or (value == best and token_id < best_id):
            best = value
            best_id = token_id
    return best_id, survivors, best


@kernel("void(float32[:, ::1], int64, uint64[::1], int64, int64, int64, int64[::1], int64[::1])")
def sample_rows(
    logits: np.ndarray,
    first_position: int,
    seed_words: np.ndarray,
    temperature_milli: int,
    top_k: int,
    top_p_milli: int,
    token_ids: np.ndarray,
    logprobs: np.ndarray,
) -> None:
    """The token and its log-probability for each row of logits; row r is output position first +
    r."""
    ids, values = np.empty(CANDIDATES, np.int64), np.empty(CANDIDATES, np.float64)
    for row in range(logits.shape[0]):
        count = select_candidates(logits[row], ids, values)
        token_id, _, _ = choose(
            ids,
            values,
            count,
            first_position + row,
            seed_words,
            temperature_milli,
            top_k,
            top_p_milli,
        )
        greatest = values[0]
        log_total = log_sum_exp(logits[row], greatest)
        token_ids[row] = token_id
        logprobs[row] = fixed_logprob(float(logits[row, token_id]), greatest, log_total)


@helper
def margin_of(
    claimed: int,
    value: float,
    position: int,
    seed_words: np.ndarray,
    temperature_milli: int,
    best: float,
    last_survivor: float,
    survives: bool,
) -> float:
    """Best noisy score minus the claimed token's in 2^-20 units, with what it lacks to survive
    added; `value` and `last_survivor` are logits."""
    if temperature_milli == 0:
        margin = best - value
    else:
        scale = _MILLI / temperature_milli
        own = value * scale
        margin = max(best - (own + noise(claimed, position, seed_words)), 0.0)
        if not survives:
            margin += max(last_survivor * scale - own, 0.0)
    return min(float(np.floor(margin * _UNITS + 0.5)), _CLIP)


@kernel("void(float32[:, ::1], int64, uint64[::1], int64, int64, int64, int64[::1], int64[:, ::1])")
def replay_rows(
    logits: np.ndarray,
    first_position: int,
    seed_words: np.ndarray,
    temperature_milli: int,
    top_k: int,
    top_p_milli: int,
    claimed: np.ndarray,
    out: np.ndarray,
) -> None:
    """Compare claimed token ids (each within the vocabulary) with the rule, row by row.

    out is int64[rows, 5]: the rule's token, margin, own log-probability of the claimed token, own
    log-probability of the runner-up (the token of greatest logit other than the claimed one, the
    lower id of equal ones), and whether the claimed token is among the candidates.
    """
    ids, values = np.empty(CANDIDATES, np.int64), np.empty(CANDIDATES, np.float64)
    for row in range(logits.shape[0]):
        position = first_position + row
        count = select_candidates(logits[row], ids, values)
        token_id, survivors, best = choose(
            ids, values, count, position, seed_words, temperature_milli, top_k, top_p_milli
        )
        rank = 0
        while rank < count and ids[rank] != claimed[row]:
            rank += 1
        log_total = log_sum_exp(logits[row], values[0])
        claimed_value = float(logits[row, claimed[row]])
        runner_up = values[1] if rank == 0 and count > 1 else values[0]
        out[row, 0] = token_id
        out[row, 1] = np.int64(
            margin_of(
                claimed[row],
                claimed_value,
                position,
                seed_words,
                temperature_milli,
                best,
                values[survivors - 1],
                rank < survivors,
            )
        )
        out[row, 2] = fixed_logprob(claimed_value, values[0], log_total)
        out[row, 3] = fixed_logprob(runner_up, values[0], log_total)
        out[row, 4] = 1 if rank < count else 0


def seed_words(seed: bytes) -> np.ndarray:
    """uint64[4] of the seed's first 16 bytes as the kernels take them."""
    return np.frombuffer(seed[:16], dtype="<u4").astype(np.uint64)
