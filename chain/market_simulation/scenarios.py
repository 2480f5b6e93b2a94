"""What one run of a market is: its rules, its people, its jobs."""

from dataclasses import dataclass, field
from typing import Final

from chain.market_simulation.strategies import (
    HONEST_PROVIDER,
    HONEST_VERIFIER,
    ProviderStrategy,
    VerifierStrategy,
)
from chain.parameters import Parameters

PROVIDERS_DEFAULT: Final = 3
VERIFIERS_DEFAULT: Final = 9
JOBS_DEFAULT: Final = 120


@dataclass(frozen=True, slots=True)
class Work:
    """The jobs that are asked for, all alike."""

    input_tokens: int = 64
    output_tokens: int = 128
    input_price: int = 1_000
    """Grain a token, in every provider's offer."""
    output_price: int = 10_000

    @property
    def price(self) -> int:
        """Grain for the tokens of one job, verification not included."""
        return self.input_tokens * self.input_price + self.output_tokens * self.output_price


@dataclass(frozen=True, slots=True)
class Scenario:
    """One market. Agents of the group come first in both tuples."""

    providers: tuple[ProviderStrategy, ...] = (HONEST_PROVIDER,) * PROVIDERS_DEFAULT
    verifiers: tuple[VerifierStrategy, ...] = (HONEST_VERIFIER,) * VERIFIERS_DEFAULT
    group_providers: int = 0
    """How many of the providers are the group's."""
    group_verifiers: int = 0
    jobs: int = JOBS_DEFAULT
    traps_ppm: int = 0
    """Traps for each million jobs of others."""
    work: Work = Work()
    parameters: Parameters = field(default_factory=Parameters)

    def __post_init__(self) -> None:
        if not 0 <= self.group_providers <= len(self.providers):
            raise ValueError(f"{self.group_providers} of {len(self.providers)} providers")
        if not 0 <= self.group_verifiers <= len(self.verifiers):
            raise ValueError(f"{self.group_verifiers} of {len(self.verifiers)} verifiers")
        if not self.group_providers and not self.group_verifiers:
            raise ValueError("the group is empty, so there is nothing to compare")
        if self.jobs < 1:
            raise ValueError(f"{self.jobs} jobs, needs at least 1")
