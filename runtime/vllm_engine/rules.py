"""How a request's sampling rule and public seed travel through vLLM to our logits processors."""

from collections.abc import Collection
from typing import Any, Final

from runtime.engine import (
    MAX_LOGPROB_CEILING_MILLI,
    MAX_OUTPUT_TOKENS,
    MAX_TEMPERATURE_MILLI,
    MAX_TOP_K,
    MAX_TOP_P_MILLI,
    SamplingRule,
)
from runtime.model_config import MAX_END_TOKENS, MAX_VOCABULARY
from runtime.sampling import CEILING, RULE_HEAD, rule_array

RULE_ARGUMENT: Final = "assay_rule"
"""Key in SamplingParams.extra_args."""
RULE_WORDS: Final = RULE_HEAD + MAX_END_TOKENS
"""Of a rule in our processors, whatever it uses: they keep one row of a matrix for each request."""
NO_TOKEN: Final = -1

_LIMITS: Final = (
    MAX_TEMPERATURE_MILLI,
    MAX_TOP_K,
    MAX_TOP_P_MILLI,
    *(0xFFFFFFFF,) * 4,
    MAX_LOGPROB_CEILING_MILLI,
    MAX_OUTPUT_TOKENS,
    *(MAX_VOCABULARY - 1,) * MAX_END_TOKENS,
)


def rule_words(
    sampling: SamplingRule, seed: bytes, end_token_ids: Collection[int] = ()
) -> list[int]:
    """The integers of `runtime.sampling.rule_array`, which go with a request.

    Those after the seed are left out of a rule that does not use them.
    """
    words: list[int] = rule_array(sampling, seed, end_token_ids).tolist()
    return words if any(words[CEILING:]) else words[:CEILING]


def read_rule(extra_args: dict[str, Any] | None) -> list[int] | None:
    """RULE_WORDS integers from a request's extra_args: its rule, filled up with NO_TOKEN.

    None if the request samples as vLLM does. Raises ValueError for what is no rule.
    """
    words = (extra_args or {}).get(RULE_ARGUMENT)
    if words is None:
        return None
    whole = isinstance(words, list | tuple) and (
        len(words) == CEILING or RULE_HEAD <= len(words) <= RULE_WORDS
    )
    if not whole:
        raise ValueError(
            f"{RULE_ARGUMENT} must be {CEILING} or {RULE_HEAD} to {RULE_WORDS} integers, "
            f"is {words!r}"
        )
    for word, limit in zip(words, _LIMITS, strict=False):
        if type(word) is not int or not 0 <= word <= limit:
            raise ValueError(f"{RULE_ARGUMENT}: {word!r} is no integer from 0 to {limit}")
    unused = [0] * max(RULE_HEAD - len(words), 0)
    return [*words, *unused, *[NO_TOKEN] * (RULE_WORDS - len(words) - len(unused))]
