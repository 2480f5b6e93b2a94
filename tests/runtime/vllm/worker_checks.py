"""Checks of our worker inside vLLM, for the Python that has it; see processor_checks.py.

Run by test_cpu_worker.py. The runner here has no engine: it is given the state vLLM keeps of
requests, passes of random hidden states, and an output head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from vllm import SamplingParams
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.sample.sampler import Sampler
from vllm.v1.worker.cpu_model_runner import CPUModelRunner

from runtime.vllm_engine import launch
from runtime.vllm_engine.cpu_worker import HEAD_ROWS, OutputRowsRunner, widen
from runtime.vllm_engine.first_row import FIRST_ROW_ARGUMENT
from runtime.vllm_engine.replaced import replaced
from runtime.vllm_engine.settings import Executor, Settings, SettingsError
from tests.runtime.vllm.processor_checks import expect, run_checks

VOCABULARY = 997
WIDTH = 24
COUNT = 9
TOLERANCE_NATS = 1e-5
SOURCE = torch.Generator().manual_seed(7)
HEAD = torch.randn(VOCABULARY, WIDTH, generator=SOURCE)


@dataclass(frozen=True)
class Asked:
    """One verification: so many tokens of prompt and claim, of which the claim begins at first."""

    tokens: int
    first: int
    passes: tuple[int, ...]
    """Tokens of each forward pass; 0 where the request has no place in it."""


def runner_of(asked: Sequence[Asked]) -> tuple[Any, list[int]]:
    """A runner that knows these requests, and where it notes how many rows the head was put to."""
    runner: Any = OutputRowsRunner.__new__(OutputRowsRunner)
    rows: list[int] = []

    def compute_logits(hidden: torch.Tensor) -> torch.Tensor:
        rows.append(len(hidden))
        return hidden @ HEAD.T

    runner.device = torch.device("cpu")
    runner.model = SimpleNamespace(compute_logits=compute_logits)
    runner.model_config = SimpleNamespace(logprobs_mode="raw_logprobs")
    runner.sampler = Sampler()
    runner.num_prompt_logprobs = {str(number): COUNT for number in range(len(asked))}
    runner.requests = {}
    for number, one in enumerate(asked):
        ids = np.random.default_rng(number).integers(0, VOCABULARY, one.tokens).tolist()
        runner.requests[str(number)] = SimpleNamespace(
            prompt_token_ids=ids,
            num_computed_tokens=0,
            in_progress_prompt_logprobs_cpu=None,
            sampling_params=SamplingParams(extra_args={FIRST_ROW_ARGUMENT: one.first}),
        )
    return runner, rows


def run_passes(runner: Any, asked: Sequence[Asked], vllms_own: bool) -> dict[str, LogprobsTensors]:
    """What comes of all passes, the batch in an order that is not that of the requests."""
    method = (CPUModelRunner if vllms_own else OutputRowsRunner)._get_prompt_logprobs_dict
    source = torch.Generator().manual_seed(11)
    ended: dict[str, LogprobsTensors] = {}
    for turn in range(max(len(one.passes) for one in asked)):
        order = [
            number
            for number in reversed(range(len(asked)))
            if turn < len(asked[number].passes) and asked[number].passes[turn]
        ]
        sizes = [asked[number].passes[turn] for number in order]
        runner.input_batch = SimpleNamespace(
            req_id_to_index={str(number): place for place, number in enumerate(order)}
        )
        runner.query_start_loc = SimpleNamespace(np=np.cumsum([0, *sizes]))
        hidden = torch.randn(sum(sizes), WIDTH, generator=source)
        scheduled = {str(number): size for number, size in zip(order, sizes, strict=True)}
        found = method(runner, hidden, scheduled)
        expect(set(ended) & set(found), set(), "requests that ended twice")
        ended.update(found)
        for number, size in scheduled.items():
            runner.requests[number].num_computed_tokens += size
    return ended


BATCHES = [
    [Asked(40, 1, (40,))],
    [Asked(40, 39, (40,)), Asked(3, 2, (3,)), Asked(2, 1, (2,))],
    [Asked(300, 20, (300,)), Asked(50, 49, (50,))],
    # Chunks: the first claimed token inside one, at the edge of one, and after several.
    [Asked(64, 30, (16, 16, 16, 16)), Asked(33, 16, (16, 17)), Asked(64, 63, (63, 1))],
    [Asked(30, 10, (0, 12, 0, 18)), Asked(31, 5, (30, 0, 1)), Asked(20, 17, (16, 3, 1))],
]


def check_rows_are_those_of_vllm() -> None:
    for asked in BATCHES:
        ours = run_passes(runner_of(asked)[0], asked, vllms_own=False)
        whole = run_passes(runner_of(asked)[0], asked, vllms_own=True)
        expect(set(ours), {str(number) for number in range(len(asked))}, "requests that ended")
        expect(set(ours), set(whole), "requests that ended")
        for number, one in enumerate(asked):
            mine, theirs = ours[str(number)], whole[str(number)]
            claimed = slice(one.first - 1, None)
            expect(mine.logprobs.shape, (one.tokens - one.first, COUNT + 1), f"{one}")
            same = torch.equal(mine.logprob_token_ids, theirs.logprob_token_ids[claimed])
            expect(same, True, f"token ids of {one}")
            distance = (mine.logprobs - theirs.logprobs[claimed]).abs().max().item()
            expect(distance < TOLERANCE_NATS, True, f"{distance} nats of {one}")


def check_the_head_is_put_to_claimed_rows_only_and_few_at_once() -> None:
    for asked in BATCHES:
        runner, rows = runner_of(asked)
        run_passes(runner, asked, vllms_own=False)
        expect(sum(rows), sum(one.tokens - one.first for one in asked), f"rows of {asked}")
        expect(max(rows) <= HEAD_ROWS, True, f"{max(rows)} rows at once")


def check_a_request_that_ended_is_forgotten() -> None:
    (asked,) = BATCHES[:1]
    runner, _ = runner_of(asked)
    run_passes(runner, asked, vllms_own=False)
    expect(runner.num_prompt_logprobs, {}, "requests still waited for")
    expect(runner.requests["0"].in_progress_prompt_logprobs_cpu, None, "rows kept")


def check_a_widened_product_is_a_sum_in_float32_rounded_once() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        for bias in (None, torch.randn(64, generator=SOURCE).to(dtype)):
            weight = torch.randn(64, 96, generator=SOURCE).to(dtype)
            layer = SimpleNamespace(weight=torch.nn.Parameter(weight, requires_grad=False))
            x = torch.randn(5, 96, generator=SOURCE).to(dtype)
            exact = x.double() @ weight.double().T
            if bias is not None:
                exact += bias.double()
            widen(layer, remove_weight=True)
            expect(layer.weight.numel(), 0, "weights kept twice")
            found = layer.cpu_linear(x, layer.weight, bias)
            expect(found.dtype, dtype, "type of the product")
            # Half a unit in the last place, and what float32 sums of 96 products may be off.
            unit = torch.finfo(dtype).eps
            off = ((found.double() - exact).abs() / (unit * exact.abs() + 1e-4)).max().item()
            expect(off <= 0.51, True, f"{dtype}: {off} units off")


def check_ray_where_it_is_not_installed_is_refused() -> None:
    with replaced(launch, "ray_is_available", lambda: False):
        expect(launch.executor_of(Settings(tensor_parallel_size=2), on_cpu=True), "mp")
        expect(launch.executor_of(Settings(), on_cpu=True), "uni")
        try:
            launch.executor_of(Settings(executor=Executor.RAY), on_cpu=True)
        except SettingsError as error:
            expect("this Python has no Ray" in str(error), True, str(error))
        else:
            raise ValueError("Ray was taken though it is not there")


def check_ray_on_other_platforms_is_vllms_own() -> None:
    with replaced(launch, "ray_is_available", lambda: True):
        expect(launch.executor_of(Settings(executor=Executor.RAY), on_cpu=False), "ray")


CHECKS: dict[str, Callable[[], None]] = {
    "rows_are_those_of_vllm": check_rows_are_those_of_vllm,
    "the_head_is_put_to_claimed_rows_only_and_few_at_once": (
        check_the_head_is_put_to_claimed_rows_only_and_few_at_once
    ),
    "a_request_that_ended_is_forgotten": check_a_request_that_ended_is_forgotten,
    "a_widened_product_is_a_sum_in_float32_rounded_once": (
        check_a_widened_product_is_a_sum_in_float32_rounded_once
    ),
    "ray_where_it_is_not_installed_is_refused": check_ray_where_it_is_not_installed_is_refused,
    "ray_on_other_platforms_is_vllms_own": check_ray_on_other_platforms_is_vllms_own,
}


if __name__ == "__main__":
    run_checks(CHECKS)
