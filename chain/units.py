"""Compute units: what a job asks of a machine, whoever does it and whatever it costs.

One unit is a million weights applied to one token, the prompt's and the answer's alike. A forward
pass multiplies and adds about once for each weight and token (J. Kaplan et al., "Scaling Laws for
Neural Language Models", 2020, section 2.1), so a unit is a million multiply-adds. Attention comes
on top and is left out; docs/compute-units.md has the error, measured, and what a unit of either
kind of token takes.

Integers only: anybody comes to the same numbers from a registration and a receipt.
"""

from typing import Final

UNIT: Final = 10**6
"""Weights applied to one token."""
PARAMETERS_MAX: Final = 1 << 48
PRICE_UNITS: Final = 1_000
"""Prices are told for so many units, as one costs less than a grain with large models."""


def compute_units(parameters: int, tokens: int) -> int:
    """Units of so many tokens through a model, rounded up.

    Of a job split in two, the parts together have as many, or one more.
    """
    return -(-parameters * tokens // UNIT)


def price_of_units(price: int, units: int) -> int:
    """Grain for PRICE_UNITS units, rounded up, where `units` cost `price`."""
    return -(-price * PRICE_UNITS // units)
