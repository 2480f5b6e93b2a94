"""Checks of what runs inside vLLM, for the Python that has it: `PYTHON this-file NAME`.

Run by test_processor.py, one process for all; prints one line of JSON, {check: what went wrong}.
Every check fails by an exception; none looks at another's state.
"""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

from runtime.engine import SamplingRule
from runtime.philox import philox_words
from runtime.sampling import rule_array, sample_rows
from runtime.vllm_engine.noise import candidates, choose_tokens, philox
from runtime.vllm_engine.processor import PublicSeedProcessor
from runtime.vllm_engine.processor_v2 import PublicSeedProcessorV2
from runtime.vllm_engine.rules import RULE_ARGUMENT, read_rule, rule_words

VOCABULARY = 5000
CPU = torch.device("cpu")
RULES = [
    SamplingRule(temperature, top_k, top_p, 16)
    for temperature in (0, 300, 800, 1200, 5000)
    for top_k in (0, 1, 7, 64)
    for top_p in (0, 1, 600, 950, 1000)
]
ENDS = (2, 40)
EARLY = [
    replace(RULES[number], logprob_ceiling_milli=ceiling, min_tokens=least, max_output_tokens=900)
    for number in (0, 42, 60, 81)
    for ceiling in (0, 1500, 20_000)
    for least in (0, 3, 900)
]


def seed_of(number: int) -> bytes:
    return bytes((number * 37 + byte * 11) % 256 for byte in range(32))


def rows_of(seed: int, rows: int, levels: int | None = None) -> np.ndarray:
    logits = np.random.default_rng(seed).standard_normal((rows, VOCABULARY)) * 3
    if levels is not None:
        logits = np.round(logits * levels) / levels
    return logits.astype(np.float32)


def token_of(logits: np.ndarray, rule: SamplingRule, seed: bytes, position: int) -> int:
    """The token of the rule, from the reference engine's own kernel."""
    token, logprob = np.empty(1, np.int64), np.empty(1, np.int64)
    row = np.ascontiguousarray(logits).reshape(1, -1)
    sample_rows(row, position, rule_array(rule, seed, ENDS), token, logprob)
    return int(token[0])


def expect(found: object, expected: object, what: str = "") -> None:
    if found != expected:
        raise ValueError(f"{what}: found {found!r}, expected {expected!r}")


def parameters(rule: SamplingRule | None, seed: bytes) -> SamplingParams:
    if rule is None:
        return SamplingParams(temperature=0.0)
    words = rule_words(rule, seed, ENDS)
    return SamplingParams(temperature=0.0, extra_args={RULE_ARGUMENT: words})


def read(rule: SamplingRule, seed: bytes) -> list[int] | None:
    return read_rule(parameters(rule, seed).extra_args)


def forced_tokens(logits: torch.Tensor) -> list[int | None]:
    """The one possible token of each row, None where the row was left alone."""
    tokens: list[int | None] = []
    for row in logits:
        finite = torch.isfinite(row).nonzero().flatten().tolist()
        tokens.append(finite[0] if len(finite) == 1 else None)
    return tokens


def check_torch_noise_is_philox() -> None:
    random = np.random.default_rng(3)
    for _ in range(50):
        key = random.integers(0, 1 << 32, 2, np.uint64)
        counter = random.integers(0, 1 << 32, 4, np.uint64)
        expected = np.empty(4, np.uint64)
        philox_words(key, counter, expected)
        words = [torch.tensor([int(word)]) for word in (*key, *counter)]
        first, second = philox(words[0], words[1], tuple(words[2:]))
        expect((int(first), int(second)), (int(expected[0]), int(expected[1])), "words")


def check_torch_candidates_break_ties_by_id() -> None:
    logits = torch.from_numpy(rows_of(5, 4, levels=2))
    logits[0, 7], logits[0, 3] = -0.0, 0.0
    ids, values = candidates(logits)
    for row in range(4):
        order = sorted(range(VOCABULARY), key=lambda token: (-float(logits[row, token]), token))
        expect(ids[row].tolist(), order[:64], f"row {row}")
        expect(values[row].tolist(), [float(logits[row, token]) for token in order[:64]])


def check_torch_chooses_the_rules_tokens() -> None:
    for levels in (None, 4):
        logits = rows_of(11, len(RULES), levels)
        rules = np.array([read(rule, seed_of(index)) for index, rule in enumerate(RULES)])
        positions = torch.arange(len(RULES)) * 13
        tensors = torch.from_numpy(logits), positions, torch.from_numpy(rules)
        chosen = choose_tokens(*tensors, rules).tolist()
        for index, rule in enumerate(RULES):
            expected = token_of(logits[index], rule, seed_of(index), 13 * index)
            expect(chosen[index], expected, f"{rule}, levels {levels}")


def check_torch_keeps_min_tokens_and_the_ceiling() -> None:
    rules = np.array([read(rule, seed_of(index)) for index, rule in enumerate(EARLY)])
    positions = torch.arange(len(EARLY)) % 7
    for size in (60, VOCABULARY):  # with 60, those left out come up among the 64
        logits = np.ascontiguousarray(rows_of(17, len(EARLY))[:, :size])
        logits[::2, ENDS] += 12
        tensors = torch.from_numpy(logits), positions, torch.from_numpy(rules)
        chosen = choose_tokens(*tensors, rules).tolist()
        for index, rule in enumerate(EARLY):
            expected = token_of(logits[index], rule, seed_of(index), index % 7)
            expect(chosen[index], expected, f"{rule} at {index % 7} of {size}")


def check_both_runners_keep_min_tokens_and_the_ceiling() -> None:
    rules = [EARLY[number] for number in (13, 14, 16, 22)]
    logits = rows_of(23, len(rules))
    logits[:, ENDS] += 12
    first = PublicSeedProcessor(None, CPU, False)
    entered = [
        (row, parameters(rule, seed_of(row)), [1], [0] * (3 * (row % 2)))
        for row, rule in enumerate(rules)
    ]
    first.update_state(BatchUpdate(len(rules), [], entered, []))
    slots, prompt = list(range(len(rules))), 5
    lengths = torch.full((len(rules),), prompt, dtype=torch.int32)
    second = PublicSeedProcessorV2(None, FakeStates(CPU, len(rules), FakeLengths(lengths)))
    for slot, rule in enumerate(rules):
        second.add_request(slot, parameters(rule, seed_of(slot)))
    second.apply_staged_writes()
    fed = [prompt - 1 + 3 * (slot % 2) for slot in slots]
    forced = [
        forced_tokens(first.apply(torch.from_numpy(logits.copy()))),
        forced_tokens(second.apply(torch.from_numpy(logits.copy()), context(slots, fed))),
    ]
    for slot, rule in enumerate(rules):
        expected = token_of(logits[slot], rule, seed_of(slot), 3 * (slot % 2))
        expect([tokens[slot] for tokens in forced], [expected] * 2, f"{rule} in slot {slot}")


def check_first_runner_follows_its_batch() -> None:
    """Requests enter, move, swap and leave; each row gets its own request's token or is left."""
    processor = PublicSeedProcessor(None, CPU, False)
    expect(processor.is_argmax_invariant(), False)
    outputs: dict[int, list[int]] = {number: [] for number in range(5)}
    rules = {0: RULES[42], 1: RULES[60], 2: None, 3: RULES[0], 4: RULES[81]}

    def added(row: int, number: int) -> tuple[int, SamplingParams, list[int], list[int]]:
        return row, parameters(rules[number], seed_of(number)), [1], outputs[number]

    def step(layout: list[int], update: BatchUpdate | None) -> None:
        processor.update_state(update)
        logits = rows_of(len(outputs[0]) + 100 * len(layout), len(layout))
        forced = forced_tokens(processor.apply(torch.from_numpy(logits.copy())))
        for row, number in enumerate(layout):
            rule = rules[number]
            expected = None
            if rule is not None:
                position = len(outputs[number])
                expected = token_of(logits[row], rule, seed_of(number), position)
            expect(forced[row], expected, f"row {row} of {layout}")
        for number in layout:
            outputs[number].append(0)

    step([0, 1, 2], BatchUpdate(3, [], [added(0, 0), added(1, 1), added(2, 2)], []))
    step([0, 1, 2], None)
    step([2, 1, 0], BatchUpdate(3, [], [], [(0, 2, MoveDirectionality.SWAP)]))
    step([2, 0], BatchUpdate(2, [1], [], [(2, 1, MoveDirectionality.UNIDIRECTIONAL)]))
    step([2, 3, 4], BatchUpdate(3, [1], [added(1, 3), added(2, 4)], []))
    step([3], BatchUpdate(1, [0, 2], [], [(1, 0, MoveDirectionality.UNIDIRECTIONAL)]))
    processor.update_state(BatchUpdate(0, [0], [], []))
    untouched = torch.zeros(1, 4)
    expect(processor.apply(untouched).tolist(), [[0.0] * 4])


def check_bad_rules_are_refused_at_the_door() -> None:
    bad = SamplingParams(temperature=0.0, extra_args={RULE_ARGUMENT: [1, 2, 3]})
    for processor in (PublicSeedProcessor, PublicSeedProcessorV2):
        processor.validate_params(parameters(None, b""))
        try:
            processor.validate_params(bad)
        except ValueError:
            continue
        raise ValueError(f"{processor.__name__} took a rule of three words")


@dataclass
class FakeLengths:
    gpu: torch.Tensor


@dataclass
class FakeStates:
    """What the second runner shares with processors, as far as ours looks."""

    device: torch.device
    max_num_reqs: int
    prompt_len: FakeLengths


def context(slots: list[int], positions: list[int]) -> LogitsContext:
    mapping = torch.tensor(slots, dtype=torch.int32)
    return LogitsContext(
        expanded_idx_mapping=mapping,
        idx_mapping=mapping,
        idx_mapping_np=np.array(slots, np.int32),
        expanded_local_pos=torch.zeros(len(slots), dtype=torch.int32),
        input_ids=torch.zeros(len(slots), dtype=torch.int32),
        pos=torch.tensor(positions, dtype=torch.int64),
        seq_lens_upper_bound_np=np.array(positions, np.int32) + 1,
    )


def check_second_runner_forces_by_slot() -> None:
    prompts = torch.tensor([10, 4, 6, 9], dtype=torch.int32)
    processor = PublicSeedProcessorV2(None, FakeStates(CPU, 4, FakeLengths(prompts)))
    rules = {0: RULES[42], 2: RULES[60]}
    for slot in range(4):
        expect(
            processor.add_request(slot, parameters(rules.get(slot), seed_of(slot))),
            slot in rules,
        )
    processor.apply_staged_writes()
    # Positions of the tokens fed last: the first output of slot 2, the fourth of slot 0.
    slots, fed, outputs = [2, 1, 0], [5, 20, 12], [0, 17, 3]
    logits = rows_of(21, 3)
    forced = forced_tokens(processor.apply(torch.from_numpy(logits.copy()), context(slots, fed)))
    for row, slot in enumerate(slots):
        rule = rules.get(slot)
        expected = rule and token_of(logits[row], rule, seed_of(slot), outputs[row])
        expect(forced[row], expected, f"slot {slot}")
    # A slot that is taken over by a request without a rule is left alone.
    processor.add_request(0, parameters(None, b""))
    processor.add_request(2, parameters(None, b""))
    processor.apply_staged_writes()
    again = torch.from_numpy(logits.copy())
    expect(torch.equal(processor.apply(again, context(slots, fed)), again), True)


CHECKS: dict[str, Callable[[], None]] = {
    "torch_noise_is_philox": check_torch_noise_is_philox,
    "torch_candidates_break_ties_by_id": check_torch_candidates_break_ties_by_id,
    "torch_chooses_the_rules_tokens": check_torch_chooses_the_rules_tokens,
    "torch_keeps_min_tokens_and_the_ceiling": check_torch_keeps_min_tokens_and_the_ceiling,
    "both_runners_keep_min_tokens_and_the_ceiling": (
        check_both_runners_keep_min_tokens_and_the_ceiling
    ),
    "first_runner_follows_its_batch": check_first_runner_follows_its_batch,
    "bad_rules_are_refused_at_the_door": check_bad_rules_are_refused_at_the_door,
    "second_runner_forces_by_slot": check_second_runner_forces_by_slot,
}


def run_checks(checks: dict[str, Callable[[], None]]) -> None:
    """Print what went wrong in each."""
    found: dict[str, str] = {}
    for name, check in checks.items():
        try:
            check()
        except Exception:  # noqa: BLE001 - told to the test that ran this
            found[name] = traceback.format_exc()
        else:
            found[name] = ""
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    run_checks(CHECKS)
