"""What public-seed sampling and verification cost in vLLM: ratios within one run.

    PYTHONPATH=. TORCH_PYTHON bench/vllm_runtime.py PACKAGE [--output FILE.json] [--rounds N] …

One engine serves all variants in turn, round after round, so that what else the machine does falls
on each alike. Ratios are taken within a round; shown are the median of the rounds, the least and
the greatest. `cpu` ratios count processor seconds of the engine core and of this process, which a
shared machine disturbs less than wall time.

Sampling, at `--in-flight` requests of `--tokens` tokens:
    own             vLLM's seeded sampling (temperature 0.8), no log-probabilities
    own+logprobs    the same with the log-probability of each token
    public          public-seed sampling, no log-probabilities
    public+logprobs what a provider runs: public seed and evidence
Verification: one prefill of prompt and claim, scored, over generating that claim.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from runtime.backend import Asked
from runtime.engine import ChatInput, Completion, Message, Role, SamplingRule
from runtime.packages import load
from runtime.scheduler import Share, Workload
from runtime.vllm_engine.backend import VllmBackend, open_backend
from runtime.vllm_engine.rules import RULE_ARGUMENT, rule_words
from runtime.vllm_engine.settings import DataType, Settings

SUBJECTS = ("gold", "rain", "bread", "the sea", "clocks", "letters", "bridges", "snow")
VARIANTS = ("own", "own+logprobs", "public", "public+logprobs")
FAR_S = 86_400.0
TEMPERATURE_MILLI = 800


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one variant in one round."""

    wall_s: float
    cpu_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Of a ratio over the rounds."""

    median: float
    least: float
    greatest: float
    rounds: int


def spread(values: list[float]) -> Spread:
    rounded = [round(value, 4) for value in values]
    return Spread(round(statistics.median(rounded), 4), min(rounded), max(rounded), len(rounded))


def cpu_s() -> float:
    """Processor seconds of this process and of all it started."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def asked(number: int, tokens: int) -> Asked:
    subject = SUBJECTS[number % len(SUBJECTS)]
    message = Message(Role.USER, f"Tell me a long story about {subject}, number {number}.")
    seed = bytes([number % 256]) * 32
    return Asked(ChatInput((message,)), SamplingRule(TEMPERATURE_MILLI, 0, 0, tokens), seed)


class Bench:
    def __init__(self, backend: VllmBackend) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._backend = backend
        self._parameters: Callable[..., Any] = SamplingParams
        self._delta = RequestOutputKind.DELTA

    async def measured(self, work: Coroutine[Any, Any, int]) -> Cost:
        before_s, started_s = cpu_s(), time.perf_counter()
        tokens = await work
        return Cost(time.perf_counter() - started_s, cpu_s() - before_s, tokens)

    async def sample(self, variant: str, in_flight: int, tokens: int) -> int:
        """Run one variant; every request makes exactly `tokens` tokens."""
        return sum(await asyncio.gather(*(self._one(variant, n, tokens) for n in range(in_flight))))

    async def _one(self, variant: str, number: int, tokens: int) -> int:
        request = asked(number, tokens)
        prompt = self._backend._tokenizer.encode(request.input)
        common: dict[str, Any] = {
            "max_tokens": tokens,
            "ignore_eos": True,
            "detokenize": False,
            "output_kind": self._delta,
            "logprobs": 0 if variant.endswith("+logprobs") else None,
        }
        if variant.startswith("own"):
            parameters = self._parameters(temperature=0.8, seed=number, **common)
        else:
            rule = rule_words(request.sampling, request.seed)
            parameters = self._parameters(
                temperature=0.0, extra_args={RULE_ARGUMENT: rule}, **common
            )
        count = 0
        prompts = {"prompt_token_ids": prompt}
        async for output in self._backend._engine.generate(prompts, parameters, uuid.uuid4().hex):
            count += len(output.outputs[0].token_ids)
        return count

    async def generate(self, in_flight: int, tokens: int) -> list[tuple[Asked, Completion]]:
        async def one(number: int) -> tuple[Asked, Completion]:
            request = asked(number, tokens)
            async for event in self._backend.generate(request, time.monotonic() + FAR_S):
                if isinstance(event, Completion):
                    return request, event
            raise RuntimeError("a generation ended without its completion")

        return await asyncio.gather(*(one(number) for number in range(in_flight)))

    async def verify(self, claims: list[tuple[Asked, Completion]]) -> int:
        verdicts = await asyncio.gather(
            *(
                self._backend.verify(request, claim, [0], time.monotonic() + FAR_S)
                for request, claim in claims
            )
        )
        mismatches = sum(verdict.scores.replay_mismatches for verdict in verdicts)
        positions = sum(verdict.scores.positions for verdict in verdicts)
        if mismatches > 0.1 * positions:
            raise RuntimeError(f"{mismatches} of {positions} positions differ: nothing to measure")
        return positions

    async def verify_ratio(self, in_flight: int, tokens: int, rounds: int) -> dict[str, Any]:
        wall, cpu, produced = [], [], 0
        for _ in range(rounds):
            claims: list[tuple[Asked, Completion]] = []

            async def generating(kept: list[tuple[Asked, Completion]]) -> int:
                kept += await self.generate(in_flight, tokens)
                return sum(len(claim.token_ids) for _, claim in kept)

            made = await self.measured(generating(claims))
            judged = await self.measured(self.verify(claims))
            produced = made.tokens
            wall.append(judged.wall_s / made.wall_s)
            cpu.append(judged.cpu_s / made.cpu_s)
        return {
            "in_flight": in_flight,
            "output_tokens": produced,
            "wall": asdict(spread(wall)),
            "cpu": asdict(spread(cpu)),
        }


def against(costs: dict[str, list[Cost]], variant: str, base: str) -> dict[str, Any]:
    """Cost a token of `variant` over `base`, round by round."""
    pairs = list(zip(costs[variant], costs[base], strict=True))
    wall = [(a.wall_s / a.tokens) / (b.wall_s / b.tokens) for a, b in pairs]
    cpu = [(a.cpu_s / a.tokens) / (b.cpu_s / b.tokens) for a, b in pairs]
    return {"wall": asdict(spread(wall)), "cpu": asdict(spread(cpu))}


async def run(options: argparse.Namespace, backend: VllmBackend) -> dict[str, Any]:
    await backend.start()
    bench = Bench(backend)
    for variant in VARIANTS:
        await bench.sample(variant, options.in_flight, 4)
    await bench.verify(await bench.generate(1, 8))
    costs: dict[str, list[Cost]] = {variant: [] for variant in VARIANTS}
    for number in range(options.rounds):
        # Turned round each time, so that no variant always follows the same one.
        for variant in VARIANTS[:: 1 if number % 2 == 0 else -1]:
            work = bench.sample(variant, options.in_flight, options.tokens)
            costs[variant].append(await bench.measured(work))
    report = {
        "profile": backend.profile,
        "model": backend.package.manifest.name,
        "threads": options.threads,
        "load_average": os.getloadavg(),
        "in_flight": options.in_flight,
        "tokens_each": options.tokens,
        "tokens_a_second": {
            name: round(statistics.median(c.tokens / c.wall_s for c in rounds), 1)
            for name, rounds in costs.items()
        },
        "public+logprobs over own": against(costs, "public+logprobs", "own"),
        "public+logprobs over own+logprobs": against(costs, "public+logprobs", "own+logprobs"),
        "public over own": against(costs, "public", "own"),
        "verify over generate": [
            await bench.verify_ratio(in_flight, options.verify_tokens, options.verify_rounds)
            for in_flight in options.verify_in_flight
        ],
    }
    await backend.stop()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("package", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--dtype", type=DataType, default=DataType.FLOAT32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--verify-tokens", type=int, default=256)
    parser.add_argument("--verify-rounds", type=int, default=3)
    parser.add_argument("--verify-in-flight", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--export-directory", type=Path)
    options = parser.parse_args()
    settings = Settings(
        dtype=options.dtype, threads=options.threads, export_directory=options.export_directory
    )
    shares = {workload: Share(32, 32) for workload in Workload}
    backend = open_backend(load(options.package), settings, shares)
    report = asyncio.run(run(options, backend))
    text = json.dumps(report, indent=2)
    sys.stdout.write(text + "\n")
    if options.output is not None:
        options.output.write_text(text + "\n")
