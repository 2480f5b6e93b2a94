"""What agents may do: one row a strategy, for providers and for verifiers.

A row says what is done and what work it costs; `market` carries it out on the ledger.
"""

import enum
from dataclasses import dataclass
from typing import Final

HONEST: Final = "honest"


@dataclass(frozen=True, slots=True)
class ProviderStrategy:
    """How a provider answers the jobs it is assigned."""

    name: str
    fraud: str | None = None
    """Class of fraud in `Assumptions.detection_ppm`; None answers truly."""
    answers: bool = True
    """False lets the deadline pass."""
    own_requests_ppm: int = 0
    """Jobs it asks of itself, for each million that others ask of anybody."""


class Words(enum.Enum):
    """What verdict a verifier brings."""

    TRUE = "what the evidence shows"
    PASS = "PASS"
    FAIL = "FAIL"
    ABSTAIN = "ABSTAIN"


class Numbers(enum.Enum):
    """What fingerprint a verifier brings."""

    TRUE = "computed, or told by somebody who computed it"
    MADE_UP = "made up alone"
    AGREED = "made up, the same for all of the group"


class Opening(enum.Enum):
    """Whether and when a verifier reveals."""

    AT_ONCE = "at once"
    NEVER = "never"
    IF_BORNE_OUT = "after the others, and only if they bear its numbers out"


@dataclass(frozen=True, slots=True)
class VerifierStrategy:
    """How a verifier fills the seats it is drawn for."""

    name: str
    works: bool = True
    """Whether it pays for a verification."""
    words: Words = Words.TRUE
    numbers: Numbers = Numbers.TRUE
    opening: Opening = Opening.AT_ONCE
    copies: bool = False
    """Commits to what another seat committed to, and opens it with that seat's reveal."""
    only_for_group: bool = False
    """Honest about jobs of providers outside of its group."""


HONEST_PROVIDER: Final = ProviderStrategy(HONEST)
HONEST_VERIFIER: Final = VerifierStrategy(HONEST)

PROVIDERS: Final = (
    ProviderStrategy("int8 weights", fraud="int8"),
    ProviderStrategy("int4 weights", fraud="int4"),
    ProviderStrategy("smaller model", fraud="smaller-model"),
    ProviderStrategy("wrong seed", fraud="wrong-seed"),
    ProviderStrategy("best of four seeds", fraud="ground-seed"),
    ProviderStrategy("no answer", answers=False),
    ProviderStrategy("asks itself", own_requests_ppm=500_000),
)
VERIFIERS: Final = (
    VerifierStrategy("lazy", works=False, words=Words.PASS, numbers=Numbers.MADE_UP),
    VerifierStrategy(
        "lazy, hides when outvoted",
        works=False,
        words=Words.PASS,
        numbers=Numbers.MADE_UP,
        opening=Opening.IF_BORNE_OUT,
    ),
    VerifierStrategy("copies commits and reveals", works=False, copies=True),
    VerifierStrategy("abstains", works=False, words=Words.ABSTAIN),
    VerifierStrategy("works, never reveals", opening=Opening.NEVER),
    VerifierStrategy("always FAIL", words=Words.FAIL),
    VerifierStrategy(
        "always FAIL without work", works=False, words=Words.FAIL, numbers=Numbers.MADE_UP
    ),
    VerifierStrategy("is told the numbers", works=False, words=Words.PASS),
)
LAZY_TOGETHER: Final = VerifierStrategy(
    "lazy together", works=False, words=Words.PASS, numbers=Numbers.AGREED
)
ACCOMPLICE: Final = VerifierStrategy(
    "passes its own provider",
    works=False,
    words=Words.PASS,
    numbers=Numbers.AGREED,
    only_for_group=True,
)
