import hashlib
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit, types

from runtime.kernels import KERNEL_SOURCES
from runtime.maths import exp32_each, log64_each
from runtime.model_config import ModelConfig
from runtime.packages import pack
from runtime.reference.model import Model
from runtime.reference.products import multiply
from runtime.reference.weights import load_weights
from tests.runtime.tiny_model import TinyModel, write_directory, write_gguf

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"


def make_model(folder: Path, model: TinyModel, threads: int = 1, directory: bool = False) -> Model:
    write = write_directory if directory else write_gguf
    package = pack(write(model, folder / "source"), folder / "package")
    config = package.config()
    return Model(config, load_weights(config, package.tensors()), threads)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(tmp_path_factory.mktemp("tiny"), TinyModel())


def tokens_of(model: Model, count: int) -> list[int]:
    drawn: list[int] = np.random.default_rng(3).integers(0, model.config.vocabulary, count).tolist()
    return drawn


def logits_in_blocks(model: Model, tokens: list[int], block: int) -> np.ndarray:
    sequence = model.sequence(len(tokens))
    rows = [
        model.extend(sequence, tokens[start : start + block], 0)
        for start in range(0, len(tokens), block)
    ]
    joined: np.ndarray = np.concatenate(rows)
    return joined[:, : model.config.vocabulary]


def plain_forward(config: ModelConfig, tensors: dict[str, np.ndarray], tokens: list[int]) -> Any:
    """The model in float64, written for the eye: whole matrices, no cache, no blocks."""
    weights = {name: values.astype(np.float64) for name, values in tensors.items()}

    def norm(x: Any, name: str) -> Any:
        return weights[name] * x / np.sqrt((x * x).mean(-1, keepdims=True) + config.rms_epsilon)

    def project(x: Any, name: str) -> Any:
        bias = weights.get(name + ".bias", 0.0)
        return x @ weights[name + ".weight"].T + bias

    def heads_of(x: Any, heads: int) -> Any:
        return x.reshape(len(tokens), heads, config.head_width).swapaxes(0, 1)

    half = config.head_width // 2
    divisors = np.array(config.rope_divisors or [1.0] * half)
    frequencies = config.rope_base ** (-np.arange(half) * 2 / config.head_width) / divisors
    angles = np.arange(len(tokens))[:, None] * frequencies

    def turn(x: Any) -> Any:
        a, b = x[..., :half], x[..., half:]
        return np.concatenate(
            [a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], -1
        )

    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(config.layers):
        name = f"model.layers.{layer}."
        y = norm(x, name + "input_layernorm.weight")
        query = heads_of(project(y, name + "self_attn.q_proj"), config.heads)
        key = heads_of(project(y, name + "self_attn.k_proj"), config.kv_heads)
        if config.qk_norm:
            query = norm(query, name + "self_attn.q_norm.weight")
            key = norm(key, name + "self_attn.k_norm.weight")
        query, key = turn(query), turn(key)
        value = heads_of(project(y, name + "self_attn.v_proj"), config.kv_heads)
        repeats = config.heads // config.kv_heads
        key, value = np.repeat(key, repeats, 0), np.repeat(value, repeats, 0)
        scores = query @ key.swapaxes(1, 2) / config.head_width**0.5
        scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = (shares @ value).swapaxes(0, 1).reshape(len(tokens), -1)
        x = x + project(mixed, name + "self_attn.o_proj")
        y = norm(x, name + "post_attention_layernorm.weight")
        gate = project(y, name + "mlp.gate_proj")
        active = gate / (1 + np.exp(-gate)) * project(y, name + "mlp.up_proj")
        x = x + project(active, name + "mlp.down_proj")
    head = "model.embed_tokens" if config.tied_embeddings else "lm_head"
    return norm(x, "model.norm.weight") @ weights[head + ".weight"].T


SHAPES = [
    TinyModel(),
    TinyModel(tied=True, seed=8),
    TinyModel(bias=True, seed=9),
    TinyModel(heads=3, kv_heads=3, head_width=32, width=96, feed_width=16, layers=3),
    TinyModel(heads=4, kv_heads=1, rope_base=500.0),
    TinyModel(qk_norm=True, tied=True, seed=10),
]
STRETCHED = TinyModel(rope_divisors=(1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0, 8.0))


@pytest.mark.parametrize(
    ("shape", "directory"),
    [*((shape, directory) for shape in SHAPES for directory in (False, True)), (STRETCHED, False)],
)
def test_logits_are_those_of_the_model_written_plainly(
    tmp_path: Path, shape: TinyModel, directory: bool
) -> None:
    model = make_model(tmp_path, shape, directory=directory)
    tokens = tokens_of(model, 40)
    expected = plain_forward(model.config, shape.tensors(), tokens)
    assert np.abs(logits_in_blocks(model, tokens, 17) - expected).max() < 2e-4


def test_gguf_and_safetensors_of_the_same_weights_give_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = make_model(tmp_path / "a", TinyModel())
    second = make_model(tmp_path / "b", TinyModel(), directory=True)
    tokens = tokens_of(first, 30)
    assert logits_in_blocks(first, tokens, 8).tobytes() == (
        logits_in_blocks(second, tokens, 8).tobytes()
    )


@pytest.fixture(scope="module")
def by_threads(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Model]:
    others = {
        threads: make_model(tmp_path_factory.mktemp("threads"), TinyModel(), threads)
        for threads in (2, 3)
    }
    return {1: tiny, **others}


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("block", [1, 2, 5, 6, 7, 16, 33, 90])
def test_bits_do_not_depend_on_threads_or_on_how_tokens_are_cut_into_blocks(
    tiny: Model, by_threads: dict[int, Model], threads: int, block: int
) -> None:
    tokens = tokens_of(tiny, 90)
    whole = logits_in_blocks(tiny, tokens, 90)
    assert logits_in_blocks(by_threads[threads], tokens, block).tobytes() == whole.tobytes()


def test_a_projection_is_the_float32_sum_in_order_of_inputs(tmp_path: Path) -> None:
    """One number followed by hand: the first logit of the first token of a model of no layers'
    effect."""
    shape = TinyModel(layers=1)
    model = make_model(tmp_path, shape)
    zeros = {
        name: np.zeros_like(values) if "proj" in name else values
        for name, values in shape.tensors().items()
    }

    class Silent:
        def names(self) -> set[str]:
            return set(zeros)

        def read(self, name: str) -> np.ndarray:
            return zeros[name]

    silent = Model(model.config, load_weights(model.config, Silent()))
    token = 77
    row = zeros["model.embed_tokens.weight"][token]
    total = np.float32(0)
    for value in row:
        total = total + value * value
    inverse = np.float32(1) / np.sqrt(total / np.float32(48) + np.float32(1e-5))
    normed = zeros["model.norm.weight"] * (row * inverse)
    found = logits_in_blocks(silent, [token], 1)[0]
    for output in (0, 1, 15, 16, 260):
        total = np.float32(0)
        for value, weight in zip(normed, zeros["lm_head.weight"][output], strict=True):
            total = total + value * weight
        assert found[output] == total


def test_padding_beyond_the_vocabulary_is_minus_infinity(tiny: Model) -> None:
    logits = tiny.extend(tiny.sequence(4), [1, 2], 1)
    assert logits.shape == (1, 272)
    assert np.isneginf(logits[0, 261:]).all() and np.isfinite(logits[0, :261]).all()


def test_sequences_do_not_disturb_each_other(tiny: Model) -> None:
    tokens = tokens_of(tiny, 20)
    alone = logits_in_blocks(tiny, tokens, 4)
    first, second = tiny.sequence(20), tiny.sequence(64)
    rows = []
    for start in range(0, 20, 4):
        rows.append(tiny.extend(first, tokens[start : start + 4], 0))
        tiny.extend(second, tokens[::-1][start : start + 3], 3)
    assert np.concatenate(rows)[:, :261].tobytes() == alone.tobytes()


def test_tokens_that_do_not_fit_are_refused(tiny: Model) -> None:
    with pytest.raises(ValueError, match="do not fit the cache"):
        tiny.extend(tiny.sequence(16), [5] * 17, 0)
    with pytest.raises(ValueError, match="exceed the context"):
        tiny.extend(tiny.sequence(500), [5] * 97, 0)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tiny.extend(tiny.sequence(16), [261], 0)
    with pytest.raises(ValueError, match="threads is 0"):
        Model(tiny.config, tiny._weights, 0)


def source_of(kernel: Any) -> Any:
    return kernel.py_func


def multiply_block(x: np.ndarray, w: np.ndarray, y: np.ndarray) -> None:
    multiply(x, 0, 32, 7, w, 0, 512, 2, 32, y, 0, 32)


@pytest.mark.parametrize(
    ("function", "arrays"),
    [(multiply_block, 3), (source_of(exp32_each), 2), (source_of(log64_each), 2)],
)
def test_machine_code_fuses_no_multiplication_with_an_addition(function: Any, arrays: int) -> None:
    number = types.float64 if function is source_of(log64_each) else types.float32
    dispatcher = njit(nogil=True, error_model="numpy")(function)
    dispatcher.compile((number[::1],) * arrays)
    (code,) = dispatcher.inspect_asm().values()
    assert re.search(r"\bv?mul[ps][sd]\b|\bfmul\b", code)
    assert not re.search(r"\bvfn?m(add|sub)|\bfn?m(add|sub)\b|\bfml[as]\b", code)


def test_logits_are_the_bits_every_machine_must_have(tiny: Model) -> None:
    """A pinned digest: it changes only with the arithmetic, and then the engine profile must
    too."""
    logits = logits_in_blocks(tiny, [(37 * index) % 261 for index in range(64)], 48)
    assert hashlib.sha256(logits.tobytes()).hexdigest() == PINNED_LOGITS


PINNED_LOGITS = "adee9721a0eddc8b3b1177ab0f38b6299815b57770426b67d3d42142990ae2d9"


def test_kernels_run_while_another_thread_holds_the_interpreter(tiny: Model) -> None:
    """Without the interpreter's lock released, two engines could not both be inside a kernel."""
    results: list[bytes] = []

    def work() -> None:
        results.append(logits_in_blocks(tiny, tokens_of(tiny, 60), 7).tobytes())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1 and len(results) == 3


def test_every_module_with_compiled_code_counts_for_the_cache_stamp() -> None:
    marks = ("runtime.kernels import", "make_tile", "numba.extending", "from numba import types")
    found = {
        path.relative_to(RUNTIME).as_posix()
        for path in RUNTIME.rglob("*.py")
        if any(mark in path.read_text() for mark in marks)
    }
    assert found | {"kernels.py"} == set(KERNEL_SOURCES)
