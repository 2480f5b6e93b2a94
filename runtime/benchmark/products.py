"""The matrix products under vLLM on a CPU: how fast they are for how many rows.

Generating with n requests in flight multiplies n rows by every weight, and a verification hundreds.
How much cheaper a verified token can be than a generated one is decided here: by how much slower a
row is in a product of n rows than in one of hundreds.
"""

import time
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, Final

from runtime.benchmark.costs import spread
from runtime.model_config import ModelConfig
from runtime.vllm_engine.settings import DataType

ROWS: Final = (1, 8, 16, 32, 256)
GIGA: Final = 1e9
HEAD: Final = "head"
LAYERS: Final = "all layers"


def shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """(depth, outputs) of the products of one layer, as vLLM packs them."""
    query = config.heads * config.head_width
    return {
        "qkv": (config.width, config.qkv_width),
        "output": (query, config.width),
        "gate_up": (config.width, 2 * config.feed_width),
        "down": (config.feed_width, config.width),
    }


def measure(config: ModelConfig, dtype: DataType, threads: int, rounds: int) -> dict[str, Any]:
    """Billions of operations a second, by rows and product, weights of all layers included."""
    import torch

    from runtime.vllm_engine.cpu_worker import product_chooser

    torch.set_num_threads(threads)
    number = getattr(torch, dtype.value)
    choose = product_chooser()

    def layer(depth: int, outputs: int) -> Any:
        weight = torch.nn.Parameter(torch.randn(outputs, depth).to(number), requires_grad=False)
        made = SimpleNamespace(weight=weight)
        choose(made, True)
        return made

    products = {
        name: [layer(*shape) for _ in range(config.layers)]
        for name, shape in shapes(config).items()
    }
    products[HEAD] = [layer(config.width, config.vocabulary)]
    sizes = {**shapes(config), HEAD: (config.width, config.vocabulary)}
    found: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for turn in range(rounds + 1):
        for rows in ROWS:
            whole = [0.0, 0.0, 0.0]
            for name, layers in products.items():
                x = torch.randn(rows, sizes[name][0]).to(number)
                wall_s, cpu_s = time.perf_counter(), time.process_time()
                for one in layers:
                    one.cpu_linear(x, one.weight, None)
                wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
                operations = 2.0 * rows * sizes[name][0] * sizes[name][1] * len(layers) / GIGA
                if turn == 0:
                    continue  # the first is of cold kernels
                found.setdefault((rows, name), []).append((operations / wall_s, operations / cpu_s))
                if name != HEAD:
                    whole = [whole[0] + operations, whole[1] + wall_s, whole[2] + cpu_s]
            if turn:
                pair = (whole[0] / whole[1], whole[0] / whole[2])
                found.setdefault((rows, LAYERS), []).append(pair)
    return {
        "dtype": dtype.value,
        "threads": threads,
        "rounds": rounds,
        "products": [
            {
                "rows": rows,
                "product": name,
                "gflop_per_s": asdict(spread(pair[0] for pair in pairs)),
                "gflop_per_cpu_s": asdict(spread(pair[1] for pair in pairs)),
            }
            for (rows, name), pairs in found.items()
        ],
    }
