"""The reference engine against the machine it runs on, in the same run.

- Decoding reads every weight once a token: its rate of reading weights over the rate at which the
  same number of threads can read memory at all.
- Prefill multiplies matrices: its rate over that of numpy's BLAS for the products of the same
  shapes, weights of all layers included, on as many threads.
- Batched decoding: time of a pass for n sequences over the time for one.

Each round measures all of these one after the other, and ratios are taken inside a round. A process
of its own does it, because numpy reads how many threads its BLAS may have when it is imported.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runtime.benchmark.costs import spread

PREFILL_ROWS = (48, 192)
BATCHES = (2, 4, 8, 16)
CONTEXT_TOKENS = 64
REPEATS = 3
BANDWIDTH_BYTES = 1 << 29
MEASURE_TIMEOUT_S = 1200


def _fastest_s(work: Callable[[], object], repeats: int = REPEATS) -> float:
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def _memory_reader(threads: int) -> Callable[[], None]:
    """Reads BANDWIDTH_BYTES once, shared among threads."""
    import numpy as np
    from numba import njit

    # Sums of integers may be reordered, so this is vector loads and little else.
    read = njit("int64(int64[::1])", nogil=True)(_sum)
    parts = np.array_split(np.ones(BANDWIDTH_BYTES // 8, np.int64), threads)
    pool = ThreadPoolExecutor(threads)

    def work() -> None:
        if sum(pool.map(read, parts)) != BANDWIDTH_BYTES // 8:
            raise RuntimeError("the sum is wrong")

    return work


def _sum(values: Any) -> int:
    total = 0
    for index in range(values.size):
        total += values[index]
    return total


def _blas_products(config: Any, rows: int, source: Any) -> Callable[[], None]:
    """The matrix products of one prefill block without its head, by numpy."""
    import numpy as np

    query, kv = config.heads * config.head_width, config.kv_heads * config.head_width
    shapes = (
        (config.width, query + 2 * kv),
        (query, config.width),
        (config.width, 2 * config.feed_width),
        (config.feed_width, config.width),
    )
    layers = [
        [source.standard_normal(shape, np.float32) for shape in shapes]
        for _ in range(config.layers)
    ]
    inputs = [source.standard_normal((rows, shape[0]), np.float32) for shape in shapes]
    outputs = [np.empty((rows, shape[1]), np.float32) for shape in shapes]

    def work() -> None:
        for weights in layers:
            for x, w, y in zip(inputs, weights, outputs, strict=True):
                np.matmul(x, w, out=y)

    return work


def measure(package_path: Path, profile: str, threads: int, rounds: int) -> dict[str, Any]:
    """One thread count and profile; numpy must have been started with as many threads."""
    import numpy as np

    from runtime.engine import SamplingRule
    from runtime.packages import load
    from runtime.reference.model import Extension, Model
    from runtime.reference.weights import load_weights
    from runtime.sampling import rule_array, sample_rows

    package = load(package_path)
    config = package.config()
    model = Model(config, load_weights(config, package.tensors(), None, profile), threads)
    read = _memory_reader(threads)
    source = np.random.default_rng(1)
    blas = {rows: _blas_products(config, rows, source) for rows in PREFILL_ROWS}
    ids = source.integers(0, config.vocabulary, 512).tolist()

    def decode_s(count: int) -> float:
        sequences = [model.sequence(CONTEXT_TOKENS + 2 * REPEATS) for _ in range(count)]
        for sequence in sequences:
            model.extend(sequence, ids[:CONTEXT_TOKENS], CONTEXT_TOKENS)
        extensions = [Extension(sequence, ids[:1], 0) for sequence in sequences]
        return _fastest_s(lambda: model.extend_together(extensions))

    def prefill_s(rows: int) -> float:
        def work() -> None:
            model.extend(model.sequence(rows), ids[:rows], rows)

        return _fastest_s(work)

    logits = model.extend(model.sequence(16), ids[:1], 0)
    token, logprob = np.empty(1, np.int64), np.empty(1, np.int64)
    rule = rule_array(SamplingRule(800, 0, 950, 16), bytes(32))

    def sample() -> None:
        sample_rows(logits, 0, rule, token, logprob)

    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for _ in range(rounds):
        bandwidth = BANDWIDTH_BYTES / _fastest_s(read)
        alone_s = decode_s(1)
        note("memory GB/s", bandwidth / 1e9)
        note("decode tokens/s", 1 / alone_s)
        note("decode / memory bandwidth", model.weight_bytes / alone_s / bandwidth)
        for count in BATCHES:
            together_s = decode_s(count)
            note(f"batch {count} tokens/s", count / together_s)
            note(f"batch {count} pass / single pass", together_s / alone_s)
        for rows in PREFILL_ROWS:
            blas_s, own_s = _fastest_s(blas[rows]), prefill_s(rows)
            note(f"prefill {rows} tokens/s", rows / own_s)
            note(f"prefill {rows} / BLAS", blas_s / own_s)
        note("sampling ms a token", 1e3 * _fastest_s(sample, 20))
    return {
        "profile": profile,
        "threads": threads,
        "weight_bytes": model.weight_bytes,
        "rounds": rounds,
        "results": {name: asdict(spread(values)) for name, values in found.items()},
    }


def measure_in_own_process(
    package_path: Path, profile: str, threads: int, rounds: int
) -> dict[str, Any]:
    """`measure`, with numpy's BLAS on as many threads. Raises RuntimeError if it did not end."""
    command = [sys.executable, "-m", __name__, str(package_path), profile]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads)}
    try:
        output = subprocess.run(
            [*command, str(threads), str(rounds)],
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
            timeout=MEASURE_TIMEOUT_S,
        ).stdout
    except subprocess.SubprocessError as error:
        raise RuntimeError(f"measuring the kernels failed: {error}") from error
    result: dict[str, Any] = json.loads(output)
    return result


def main(package_path: str, profile: str, threads: str, rounds: str) -> None:
    """Print what was measured."""
    found = measure(Path(package_path), profile, int(threads), int(rounds))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
