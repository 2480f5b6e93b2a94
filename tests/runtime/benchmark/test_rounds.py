"""The order of the rounds, and what of them is in the report."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from runtime.backend import Asked, Backend
from runtime.benchmark.meters import Reading
from runtime.benchmark.rounds import Plan, Rounds, summarise
from runtime.benchmark.subjects import PROVIDER, Overhead
from runtime.engine import Completion, SamplingRule
from runtime.scheduled import scheduled_backends
from runtime.scheduler import Share, Workload
from tests.runtime.tiny_engine import TinyEngine

PLAN = Plan(in_flight=(1, 3), tokens=6, rounds=3)


@dataclass
class Clock:
    """A meter that moves by as much as was said before."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    readings: int = 0

    def __call__(self) -> Reading:
        self.readings += 1
        self.wall_s += self.readings
        self.cpu_s += 1.0
        return Reading(self.wall_s, self.cpu_s)


@dataclass
class NotingEngine(TinyEngine):
    """Notes what it is asked for; claims are found wrong where it is to lie."""

    noted: list[str] = field(default_factory=list)
    lies: bool = False

    def generate(self, prompt_ids: Sequence[int], sampling: SamplingRule, seed: bytes) -> Any:
        self.noted.append(PROVIDER)
        return super().generate(prompt_ids, sampling, seed)

    def verify(
        self,
        prompt_ids: Sequence[int],
        sampling: SamplingRule,
        seed: bytes,
        claim: Completion,
        fingerprint_positions: Sequence[int],
    ) -> Any:
        self.noted.append("verify")
        seed = bytes(32) if self.lies else seed
        return super().verify(prompt_ids, sampling, seed, claim, fingerprint_positions)


class Scripted:
    """A subject whose variants do nothing."""

    variants = ("plain", "half")
    overheads = (Overhead("half", "plain"), Overhead(PROVIDER, "plain"))

    def __init__(self, engine: NotingEngine, missing: int = 0) -> None:
        self.engine = engine
        self.missing = missing
        model = engine.package.model_id
        shares = {kind: Share(8, 0) for kind in Workload}
        self.backend: Backend = scheduled_backends({model: engine}, shares)[model]

    async def run(self, variant: str, asked: Sequence[Asked]) -> int:
        self.engine.noted.append(variant)
        return sum(one.sampling.max_output_tokens for one in asked) - self.missing


async def rounds_of(subject: Scripted, told: list[str], plan: Plan = PLAN) -> Any:
    await subject.backend.start()
    try:
        return await Rounds(subject, plan, told.append, Clock()).run()
    finally:
        await subject.backend.stop()


async def test_each_second_round_goes_backwards_and_verification_comes_last() -> None:
    engine = NotingEngine()
    told: list[str] = []
    await rounds_of(Scripted(engine), told)
    forwards = ["plain", "half", PROVIDER, "verify"]
    backwards = [PROVIDER, "half", "plain", "verify"]
    spread_out = [
        name
        for order in (forwards, backwards, forwards)
        for count in PLAN.in_flight
        for name in order
        for _ in range(count if name in (PROVIDER, "verify") else 1)
    ]
    warm = ["plain", "half", *[PROVIDER] * 3, *["verify"] * 3]
    assert engine.noted == warm + spread_out
    assert told[0] == "warming up"
    assert told[1:3] == ["round 1 of 3, 1 in flight", "round 1 of 3, 3 in flight"]


async def test_the_report_has_each_variant_and_the_ratios_asked_for() -> None:
    subject = Scripted(NotingEngine())
    readings = await rounds_of(subject, [])
    found = summarise(subject, 3, readings[3])
    assert found["in_flight"] == 3
    assert set(found["generate"]) == {"plain", "half", PROVIDER}
    assert found["verify"]["tokens_per_s"]["rounds"] == PLAN.rounds
    assert found["first_token_ms"]["requests"] == 3 * PLAN.rounds
    assert 0 < found["first_token_ms"]["median"] <= found["first_token_ms"]["nine_tenths"]
    assert [(o["variant"], o["base"]) for o in found["overheads"]] == [
        ("half", "plain"),
        (PROVIDER, "plain"),
    ]
    # Each reading of the clock moves the processor time by one second: every cost is one second.
    assert found["verify_over_generate"]["cpu"] == {
        "median": 1.0,
        "least": 1.0,
        "greatest": 1.0,
        "rounds": 3,
    }
    cost_ms = 1000.0 / (3 * PLAN.tokens)
    assert found["generate"]["half"]["cpu_ms_per_token"]["median"] == pytest.approx(cost_ms, 1e-3)


async def test_a_variant_that_ends_early_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="plain: 5 tokens of 1 requests"):
        await rounds_of(Scripted(NotingEngine(), missing=1), [], Plan((1,), PLAN.tokens, 1))


async def test_a_verification_of_something_else_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="verified positions differ from what was generated"):
        await rounds_of(Scripted(NotingEngine(lies=True)), [])
