"""What the service talks to: one served model behind a handful of asynchronous methods.

There are two kinds. `runtime.scheduled` turns an `Engine`, a generator of single steps, into one by
means of the engine thread; `runtime.vllm_engine` hands whole requests to vLLM, which batches them
itself. The service cannot tell them apart, so both keep these rules:

- Work is refused with QueueFullError once its kind has as many requests running and waiting as it
  may have, with RequestError where the model or the protocol does not allow it.
- `deadline_s` is a time of `time.monotonic`; past it the caller gets JobExpiredError, at the latest
  EXPIRY_GRACE_S later, whatever the engine is doing.
- Cancelling a call, or closing the iterator of `generate`, frees what the engine holds for it.
- What breaks inside the engine reaches the caller as JobFailedError with its cause.
- `last_token_s` moves only when the engine has produced a token.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from runtime.engine import (
    Completion,
    InferenceInput,
    SamplingRule,
    Step,
    TextInput,
    Verification,
)
from runtime.packages import ModelPackage
from runtime.scheduler import Load, Workload

PROBE_TEXT = "1"


class EngineDeadError(Exception):
    """An engine did not start or has died; whoever watches the process should start it again."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a generation is of: checked values of one request."""

    input: InferenceInput
    sampling: SamplingRule
    seed: bytes


@dataclass(frozen=True, slots=True)
class Started:
    """The prompt is tokenized and the generation begins."""

    input_tokens: int


Event = Started | list[Step] | Completion
"""In this order: one Started, lists of the steps that came up together, one Completion."""

PROBE = Asked(
    input=TextInput(PROBE_TEXT),
    sampling=SamplingRule(temperature_milli=0, top_k=0, top_p_milli=0, max_output_tokens=1),
    seed=bytes(32),
)
"""One token, asked for when nobody else asks (see `runtime.readiness`)."""


class Backend(Protocol):
    """One model package being served. Its methods belong to one event loop."""

    @property
    def package(self) -> ModelPackage:
        """The package that is served."""
        ...

    @property
    def profile(self) -> str:
        """The name of the arithmetic, as results carry it."""
        ...

    @property
    def context_tokens(self) -> int:
        """Most tokens of input and output together."""
        ...

    @property
    def vocabulary(self) -> int:
        """Token ids run from 0 to one less."""
        ...

    @property
    def last_token_s(self) -> float | None:
        """When the engine last produced a token; None before its first."""
        ...

    async def start(self) -> None:
        """Get ready to take calls. Raises EngineDeadError."""
        ...

    async def stop(self) -> None:
        """End every call with SchedulerStoppedError and let the engine go."""
        ...

    def activity(self) -> str:
        """What the engine is doing, in words for the operator of one that is not ready."""
        ...

    def death(self) -> str:
        """Why the engine will never produce again; empty while it may."""
        ...

    def load(self, workload: Workload) -> Load:
        """How many requests of this kind wait and run."""
        ...

    async def probe(self, deadline_s: float) -> None:
        """Have the engine produce the one token of PROBE."""
        ...

    async def tokenize(self, request: InferenceInput, deadline_s: float) -> list[int]:
        """The ids of an input."""
        ...

    def generate(self, asked: Asked, deadline_s: float) -> AsyncGenerator[Event, None]:
        """Stream a generation; closing the iterator cancels it.

        The texts of the steps are a beginning of the completion's text; the rest is still to be
        sent.
        """
        ...

    async def verify(
        self,
        asked: Asked,
        claim: Completion,
        fingerprint_positions: Sequence[int],
        deadline_s: float,
    ) -> Verification:
        """Score a claim; see `Engine.verify`."""
        ...
