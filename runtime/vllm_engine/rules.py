"""How a request's sampling rule and public seed travel through vLLM to our logits processors."""

from typing import Any, Final

from runtime.engine import (
    MAX_TEMPERATURE_MILLI,
    MAX_TOP_K,
    MAX_TOP_P_MILLI,
    SamplingRule,
)
from runtime.sampling import seed_words
from runtime.vllm_engine.replay import RULE_WORDS

RULE_ARGUMENT: Final = "assay_rule"
"""Key in SamplingParams.extra_args."""

_LIMITS: Final = (MAX_TEMPERATURE_MILLI, MAX_TOP_K, MAX_TOP_P_MILLI, *(0xFFFFFFFF,) * 4)


def rule_words(sampling: SamplingRule, seed: bytes) -> list[int]:
    """RULE_WORDS integers that say how each token of a request is chosen."""
    head = [sampling.temperature_milli, sampling.top_k, sampling.top_p_milli]
    return head + [int(word) for word in seed_words(seed)]


def read_rule(extra_args: dict[str, Any] | None) -> list[int] | None:
    """The words in a request's extra_args; None if it samples as vLLM does. Raises ValueError."""
    words = (extra_args or {}).get(RULE_ARGUMENT)
    if words is None:
        return None
    if not isinstance(words, list | tuple) or len(words) != RULE_WORDS:
        raise ValueError(f"{RULE_ARGUMENT} must be {RULE_WORDS} integers, is {words!r}")
    for word, limit in zip(words, _LIMITS, strict=True):
        if type(word) is not int or not 0 <= word <= limit:
            raise ValueError(f"{RULE_ARGUMENT}: {word!r} is no integer from 0 to {limit}")
    return list(words)
