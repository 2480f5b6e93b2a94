"""Public-seed sampling as a custom logits processor of vLLM's first model runner (V1).

vLLM asks for greedy sampling; the processor leaves one token possible in each row it is asked for.
vLLM has taken the raw log-probabilities before it gets here. Rows of requests without a rule
(verifications) stay as they are.
"""

from dataclasses import dataclass

import numpy as np
import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import (
    BatchUpdate,
    LogitsProcessor,
    MoveDirectionality,
)

from runtime.vllm_engine.noise import choose_tokens
from runtime.vllm_engine.parent import die_with_parent
from runtime.vllm_engine.replay import choose_rows
from runtime.vllm_engine.rules import read_rule

NAME = f"{__name__}:PublicSeedProcessor"
"""How vLLM is told to load it, also in other processes."""


@dataclass(frozen=True, slots=True)
class _Request:
    rule: list[int]
    output_ids: list[int]
    """vLLM's own growing list: its length is the position of the token to come."""


class PublicSeedProcessor(LogitsProcessor):  # type: ignore[misc]  # vLLM has no types
    """Forces the token that the request's seed and rule give."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        die_with_parent()
        self._device = device
        self._requests: dict[int, _Request] = {}
        self._rows = np.empty(0, np.int64)
        self._rules = np.empty((0, 0), np.int64)

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raise ValueError for a rule that is none."""
        read_rule(sampling_params.extra_args)

    def is_argmax_invariant(self) -> bool:
        """It decides the greatest logit, so vLLM must not leave it out when sampling greedily."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests as they enter, leave and move within vLLM's batch."""
        if batch_update is None:
            return
        requests = self._requests
        for row in batch_update.removed:
            requests.pop(row, None)
        for row, params, _, output_ids in batch_update.added:
            rule = read_rule(params.extra_args)
            if rule is None:
                requests.pop(row, None)
            else:
                requests[row] = _Request(rule, output_ids)
        for source, target, direction in batch_update.moved:
            moved, replaced = requests.pop(source, None), requests.pop(target, None)
            if moved is not None:
                requests[target] = moved
            if replaced is not None and direction == MoveDirectionality.SWAP:
                requests[source] = replaced
        self._rows = np.array(sorted(requests), np.int64)
        self._rules = np.array([requests[row].rule for row in sorted(requests)], np.int64)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Leave one token possible in each row that has a rule; float32[batch, vocabulary]."""
        if not self._rows.size:
            return logits
        positions = np.array(
            [len(self._requests[row].output_ids) for row in self._rows.tolist()], np.int64
        )
        if logits.device.type == "cpu":
            values = logits.numpy()
            token_ids = np.empty(self._rows.size, np.int64)
            choose_rows(np.ascontiguousarray(values), self._rows, positions, self._rules, token_ids)
            values[self._rows] = -np.inf
            values[self._rows, token_ids] = 0.0
            return logits
        rows, where, rules = (
            torch.from_numpy(array).to(self._device, non_blocking=True)
            for array in (self._rows, positions, self._rules)
        )
        chosen = choose_tokens(logits[rows], where, rules, self._rules)
        logits[rows] = float("-inf")
        logits[rows, chosen] = 0.0
        return logits
