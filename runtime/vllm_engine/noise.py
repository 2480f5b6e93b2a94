"""The sampling rule of `runtime.sampling` in torch, for logits that are on a GPU.

Vectorised over rows and candidates; nothing is copied to the host. Steps 1, 4 and 6 of the rule
are exact. exp and log are the device's, and the sums of step 4 are added in the device's order, so
scores may differ from the rule's by a few units in the last place of a double: a token changes only
where two scores are that close. Where there is a ceiling, the exponentials of S are float32, and
scores at the ceiling may be off by some 10^-7.
"""

import numpy as np
import torch

from runtime.sampling import (
    CANDIDATES,
    CEILING,
    MIN_TOKENS,
    RULE_HEAD,
    SEED,
    TEMPERATURE,
    TOP_K,
    TOP_P,
)

_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
_WORD_BITS = 32
_ROUNDS = 10
_LOWEST_WORD = -(1 << 31)
_HIGHEST_KEY = (1 << 63) - 1
_UNIT_INTERVAL = 2.0**-53
_MILLI = 1000.0


def _product(word: torch.Tensor, multiplier: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(high, low) 32 bits of word * multiplier; int64 wraps round, which leaves all 64 bits."""
    product = word * multiplier
    return (product >> _WORD_BITS) & _MASK, product & _MASK


def philox(
    key_0: torch.Tensor, key_1: torch.Tensor, counter: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first two output words of Philox4x32-10; all int64 tensors of words, broadcastable."""
    counter_0, counter_1, counter_2, counter_3 = counter
    for _ in range(_ROUNDS):
        high_0, low_0 = _product(counter_0, _MULTIPLIER_0)
        high_1, low_1 = _product(counter_2, _MULTIPLIER_1)
        counter_0, counter_1 = high_1 ^ counter_1 ^ key_0, low_1
        counter_2, counter_3 = high_0 ^ counter_3 ^ key_1, low_0
        key_0, key_1 = (key_0 + _WEYL_0) & _MASK, (key_1 + _WEYL_1) & _MASK
    return counter_0, counter_1


def gumbel_noise(
    token_ids: torch.Tensor, positions: torch.Tensor, seed_words: torch.Tensor
) -> torch.Tensor:
    """float64[rows, n] noise of tokens int64[rows, n] at positions int64[rows]; seeds int64[rows,
    4]."""
    words = seed_words[:, :, None]
    counter = (token_ids, positions[:, None], words[:, 2], words[:, 3])
    word_0, word_1 = philox(words[:, 0], words[:, 1], counter)
    fraction = (word_0 << 20) | (word_1 >> 12)
    uniform = (2 * fraction + 1).to(torch.float64) * _UNIT_INTERVAL
    return -torch.log(-torch.log(uniform))


def candidates(
    logits: torch.Tensor, without: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids int64, logits float32), both [rows, 64]: the greatest, of equal ones the lower id.

    logits is float32[rows, vocabulary]; `without` int64[rows, n] holds the ids that are left out of
    each row, and negative ones for nothing. One integer key holds the logit, in an order-preserving
    form, and the complement of the id; topk on logits alone would break ties anyhow.
    """
    bits = (logits + 0.0).view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    ids = torch.arange(logits.shape[1], device=logits.device)
    keys = (ordered.to(torch.int64) << _WORD_BITS) | (_MASK - ids)
    if without is not None:
        last = (_LOWEST_WORD << _WORD_BITS) | (_MASK - without)
        lowered = torch.where(without >= 0, last, _HIGHEST_KEY)
        keys.scatter_reduce_(1, without.clamp_min(0), lowered, "amin")
    greatest = torch.topk(keys, min(CANDIDATES, logits.shape[1]), dim=1).values
    chosen = _MASK - (greatest & _MASK)
    # In a small vocabulary what is left out still comes up, behind all others.
    out = (greatest >> _WORD_BITS) == _LOWEST_WORD
    return chosen, logits.gather(1, chosen).masked_fill(out, float("-inf"))


def _highest(logits: torch.Tensor, ceilings: torch.Tensor) -> torch.Tensor:
    """float64[rows]: the greatest logit that counts by step 3, infinite where a row has no
    ceiling (int64[rows], thousandths)."""
    greatest = logits.amax(dim=1, keepdim=True)
    total = torch.exp(logits - greatest).sum(dim=1, dtype=torch.float64)
    normaliser = greatest[:, 0].to(torch.float64) + torch.log(total)
    return torch.where(ceilings > 0, normaliser - ceilings / _MILLI, float("inf"))


def _survive(scaled: torch.Tensor, top_k: torch.Tensor, top_p_milli: torch.Tensor) -> torch.Tensor:
    """bool[rows, candidates]: step 4 of the rule, for float64 scaled logits in order."""
    ranks = torch.arange(scaled.shape[1], device=scaled.device)
    kept = (top_k[:, None] == 0) | (ranks < top_k[:, None])
    weights = torch.where(kept, torch.exp(scaled - scaled[:, :1]), 0.0)
    sums = torch.cumsum(weights, dim=1)
    limit = torch.where(top_p_milli == 0, 1000, top_p_milli)[:, None]
    inside = (sums - weights) * _MILLI < sums[:, -1:] * limit
    return kept & (inside | (limit >= 1000) | (ranks == 0))


def choose_tokens(
    logits: torch.Tensor, positions: torch.Tensor, rules: torch.Tensor, known: np.ndarray
) -> torch.Tensor:
    """int64[rows] tokens for float32[rows, vocabulary] logits.

    positions int64[rows] are output positions; rules int64[rows, any] on the device, each as
    `runtime.sampling.rule_array` gives it, filled up with -1. `known` holds at least these rules on
    the host: what none of them asks for is not computed.
    """
    without = None
    if known[:, MIN_TOKENS].any():
        early = positions < rules[:, MIN_TOKENS]
        without = torch.where(early[:, None], rules[:, RULE_HEAD:], -1)
    ids, values = candidates(logits, without)
    counted = values.to(torch.float64)
    if known[:, CEILING].any():
        counted = torch.minimum(counted, _highest(logits, rules[:, CEILING])[:, None])
    temperature = rules[:, TEMPERATURE]
    scale = _MILLI / temperature.clamp_min(1).to(torch.float64)
    scaled = counted * scale[:, None]
    scores = scaled + gumbel_noise(ids, positions, rules[:, SEED:])
    survive = _survive(scaled, rules[:, TOP_K], rules[:, TOP_P])
    scores = scores.masked_fill(~survive, float("-inf"))
    best = scores.amax(dim=1, keepdim=True)
    beyond = torch.iinfo(torch.int64).max
    sampled = torch.where(scores == best, ids, beyond).amin(dim=1)
    return torch.where(temperature == 0, ids[:, 0], sampled)
