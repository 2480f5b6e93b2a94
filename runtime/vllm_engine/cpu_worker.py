"""vLLM's worker on a CPU, with two things of ours: products of 16-bit floats, and verified rows.

Where oneDNN has no kernel for bfloat16 or float16, torch falls back to loops that take about five
times as long as float32. Matrix products here are sums in float32 of the 16-bit operands, rounded
to 16 bits once, which is what processors that have such instructions compute too (their order of
summation differs, as it does between any two of them). The price is memory: such a layer holds its
weights in float32, and an embedding in both.

Log-probabilities of a prompt are computed from the first row a verification scores
(`first_row`), HEAD_ROWS at a time; vLLM would put the output head to every row of a
pass, and hold the whole vocabulary for all of them at once.

Named in `launch.engine_config` as the worker's class; vLLM imports it in the process of the worker.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from vllm import _custom_ops
from vllm.model_executor.layers import utils
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.worker import cpu_worker
from vllm.v1.worker.cpu_model_runner import CPUModelRunner

from runtime.vllm_engine.first_row import read_first_row
from runtime.vllm_engine.replaced import replaced

HALVES: Final = (torch.bfloat16, torch.float16)
MATRIX_DIMENSIONS: Final = 2
HEAD_ROWS: Final = 128
"""Rows of logits in memory at once: enough for a product at full speed."""


def has_products(dtype: torch.dtype) -> bool:
    """Whether vLLM's own product has a kernel for this type on this processor."""
    if not _custom_ops._supports_onednn:
        return True  # a build without oneDNN has its own ways
    try:
        _custom_ops.create_onednn_mm(torch.ones((16, 16), dtype=dtype), 1)
    except RuntimeError:
        return False
    return True


def widen(layer: Any, remove_weight: bool) -> None:
    """Give a layer of 16-bit weights a product in float32."""
    wide = layer.weight.detach().to(torch.float32)

    def product(x: torch.Tensor, _: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        total = torch.nn.functional.linear(x.to(torch.float32), wide)
        if bias is not None:
            total += bias
        return total.to(x.dtype)

    layer.cpu_linear = product
    if remove_weight:
        layer.weight = torch.nn.Parameter(layer.weight.new_empty(0), requires_grad=False)


def product_chooser() -> Callable[[Any, bool], None]:
    """What gives a layer its product: ours where this processor has none for its type."""
    chosen = utils.dispatch_cpu_unquantized_gemm
    missing = [dtype for dtype in HALVES if not has_products(dtype)]

    def choose(layer: Any, remove_weight: bool) -> None:
        weight = layer.weight
        matrix = weight.ndim == MATRIX_DIMENSIONS and not weight.is_meta
        if matrix and weight.dtype in missing:
            widen(layer, remove_weight)
        else:
            chosen(layer, remove_weight)

    return choose


class OutputRowsRunner(CPUModelRunner):  # type: ignore[misc]  # vLLM has no types
    """A model runner that gives log-probabilities of a prompt from a request's first row on."""

    def _get_prompt_logprobs_dict(
        self, hidden_states: torch.Tensor, num_scheduled_tokens: dict[str, int]
    ) -> dict[str, LogprobsTensors]:
        """Of the requests whose prompt ends in this pass; the ranks of tokens are left at zero."""
        ended: dict[str, LogprobsTensors] = {}
        for request_id, count in self.num_prompt_logprobs.items():
            scheduled = num_scheduled_tokens.get(request_id)
            if scheduled is None:
                continue  # preempted
            request = self.requests[request_id]
            token_ids = request.prompt_token_ids
            first = read_first_row(request.sampling_params.extra_args)
            found = request.in_progress_prompt_logprobs_cpu
            if found is None:
                found = LogprobsTensors.empty_cpu(max(len(token_ids) - first, 0), count + 1)
                found.selected_token_ranks.zero_()
                request.in_progress_prompt_logprobs_cpu = found
            # What the pass computed at a token predicts the next one.
            computed = request.num_computed_tokens
            begin = max(computed + 1, first)
            end = min(computed + scheduled + 1, len(token_ids))
            place = self.input_batch.req_id_to_index[request_id]
            before = int(self.query_start_loc.np[place]) - computed - 1
            for start in range(begin, end, HEAD_ROWS):
                stop = min(start + HEAD_ROWS, end)
                logits = self.model.compute_logits(hidden_states[before + start : before + stop])
                targets = torch.tensor(token_ids[start:stop], dtype=torch.int64)[:, None]
                self._keep_rows(found, slice(start - first, stop - first), logits, targets, count)
            if computed + scheduled >= len(token_ids):
                ended[request_id] = found
        for request_id in ended:
            del self.num_prompt_logprobs[request_id]
            self.requests[request_id].in_progress_prompt_logprobs_cpu = None
        return ended

    def _keep_rows(
        self,
        found: LogprobsTensors,
        rows: slice,
        logits: torch.Tensor,
        targets: torch.Tensor,
        count: int,
    ) -> None:
        """Write the target's log-probability and the `count` greatest of each row."""
        logprobs = self.sampler.compute_logprobs(logits)
        greatest = torch.topk(logprobs, count, dim=-1)
        found.logprob_token_ids[rows, :1] = targets.to(torch.int32)
        found.logprob_token_ids[rows, 1:] = greatest.indices.to(torch.int32)
        found.logprobs[rows, :1] = logprobs.gather(-1, targets)
        found.logprobs[rows, 1:] = greatest.values


class WideningWorker(cpu_worker.CPUWorker):  # type: ignore[misc]
    """A CPU worker with our model runner, whose layers of 16-bit weights multiply in float32."""

    def init_device(self) -> None:
        """Make the model runner, which vLLM names in its module."""
        with replaced(cpu_worker, "CPUModelRunner", OutputRowsRunner):
            super().init_device()

    def load_model(self, *args: Any, **options: Any) -> None:
        """Load the model; layers choose their product when their weights are complete."""
        with replaced(utils, "dispatch_cpu_unquantized_gemm", product_chooser()):
            super().load_model(*args, **options)
