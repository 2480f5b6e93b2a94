"""Public-seed sampling as a custom logits processor of vLLM's Model Runner V2.

vLLM uses that runner where Triton is, thus on GPUs. Its rows are of requests by slot, its state is
on the device; the rule runs there too, without a copy to the host.
"""

import numpy as np
import torch
from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.v1.worker.gpu.sample.logits_processor import (
    LogitsContext,
    LogitsProcessor,
    LogitsProcRequestState,
)

from runtime.vllm_engine.noise import choose_tokens
from runtime.vllm_engine.parent import die_with_parent
from runtime.vllm_engine.rules import RULE_WORDS, read_rule

NAME = f"{__name__}:PublicSeedProcessorV2"
"""How vLLM is told to load it, also in other processes."""


class PublicSeedProcessorV2(LogitsProcessor):  # type: ignore[misc]  # vLLM has no types
    """Forces the token that the request's seed and rule give."""

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:
        die_with_parent()
        super().__init__(vllm_config, req_states)
        self._prompt_lengths = req_states.prompt_len
        self._has_rule = np.zeros(req_states.max_num_reqs, np.bool_)
        self._rules = np.zeros((req_states.max_num_reqs, RULE_WORDS), np.int64)
        self._device_rules = torch.zeros(
            self._rules.shape, dtype=torch.int64, device=req_states.device
        )
        self._device_has_rule = torch.zeros(
            req_states.max_num_reqs, dtype=torch.bool, device=req_states.device
        )
        self._changed = False

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raise ValueError for a rule that is none."""
        read_rule(sampling_params.extra_args)

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Take over the slot for a request; whether its logits are changed here."""
        rule = read_rule(sampling_params.extra_args)
        self._has_rule[req_idx] = rule is not None
        self._rules[req_idx] = rule if rule is not None else 0
        self._changed = True
        return rule is not None

    def apply_staged_writes(self) -> None:
        """Bring the slots' rules to the device."""
        if self._changed:
            self._device_rules.copy_(torch.from_numpy(self._rules))
            self._device_has_rule.copy_(torch.from_numpy(self._has_rule))
            self._changed = False

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Leave one token possible in each row that has a rule; float32[rows, vocabulary]."""
        batch = ctx.idx_mapping_np
        if not self._has_rule[batch].any():
            return logits
        slots = ctx.expanded_idx_mapping.to(torch.int64)
        # A row stands at the token that was fed last, the one to come is behind it.
        lengths = self._prompt_lengths.gpu[slots].to(torch.int64)
        positions = (ctx.pos.to(torch.int64) + 1 - lengths).clamp_min(0)
        rules = self._device_rules[slots]
        chosen = choose_tokens(logits, positions, rules, self._rules[batch])
        forced = torch.full_like(logits, float("-inf")).scatter_(1, chosen[:, None], 0.0)
        return torch.where(self._device_has_rule[slots][:, None], forced, logits)
