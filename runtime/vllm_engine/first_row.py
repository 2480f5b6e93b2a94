"""How a verification tells vLLM's worker from which token on it wants log-probabilities."""

from typing import Any, Final

FIRST_ROW_ARGUMENT: Final = "assay_first_row"
"""Key in SamplingParams.extra_args: the index, in prompt and claim, of the first claimed token."""


def read_first_row(extra_args: dict[str, Any] | None) -> int:
    """The index in a request's extra_args; 1, the first that has a log-probability, without one.

    Raises ValueError for what is no index.
    """
    first = (extra_args or {}).get(FIRST_ROW_ARGUMENT, 1)
    if type(first) is not int or first < 1:
        raise ValueError(f"{FIRST_ROW_ARGUMENT} must be an integer from 1 up, is {first!r}")
    return first
