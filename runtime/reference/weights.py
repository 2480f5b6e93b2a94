"""From a package's tensors to the packed arrays of the forward pass."""

from collections.abc import Callable

import numpy as np

from runtime.errors import PackageError
from runtime.intrinsics import PANEL
from runtime.maths import rotary_tables
from runtime.model_config import ModelConfig
from runtime.reference.arrays import Shape, Weights
from runtime.tensors import TensorSource

_IGNORED_SUFFIXES = ("rotary_emb.inv_freq", "rope_freqs.weight")
"""Some checkpoints store these frequencies or their divisors; the config has them."""


def shape_of(config: ModelConfig) -> Shape:
    """The kernels' view of a config."""
    return Shape(
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_width=config.head_width,
        feed_width=config.feed_width,
        vocabulary=config.vocabulary,
        vocabulary_padded=_padded(config.vocabulary),
    )


def _padded(count: int) -> int:
    return -(-count // PANEL) * PANEL


def _pack(matrix: np.ndarray, out: np.ndarray) -> None:
    """Write [outputs, inputs] into out, [outputs / 16 rounded up, inputs, 16], the rest zero."""
    whole = matrix.shape[0] // PANEL
    inputs = matrix.shape[1]
    out[:whole] = matrix[: whole * PANEL].reshape(whole, PANEL, inputs).transpose(0, 2, 1)
    if whole < out.shape[0]:
        out[whole] = 0.0
        out[whole, :, : matrix.shape[0] - whole * PANEL] = matrix[whole * PANEL :].T


class _Loader:
    def __init__(self, config: ModelConfig, source: TensorSource) -> None:
        self.config = config
        self.source = source
        self.unread = {name for name in source.names() if not name.endswith(_IGNORED_SUFFIXES)}

    def tensor(self, name: str, *shape: int) -> np.ndarray:
        values = self.source.read(name)
        self.unread.discard(name)
        if values.shape != shape:
            raise PackageError(f"tensor {name} has shape {values.shape}, config.json says {shape}")
        if not np.isfinite(values).all():
            raise PackageError(f"tensor {name} holds values that are not finite")
        return values

    def layer(self, layer: int, part: str, outputs: int, inputs: int) -> np.ndarray:
        return self.tensor(f"model.layers.{layer}.{part}.weight", outputs, inputs)

    def table(self, name: str) -> np.ndarray:
        config = self.config
        packed = _panels(1, config.vocabulary, config.width)
        _pack(self.tensor(name, config.vocabulary, config.width), packed[0])
        return packed.reshape(-1)


def _panels(layers: int, outputs: int, inputs: int) -> np.ndarray:
    return np.empty((layers, _padded(outputs) // PANEL, inputs, PANEL), np.float32)


def load_weights(
    config: ModelConfig,
    source: TensorSource,
    progress: Callable[[int, int], None] | None = None,
) -> Weights:
    """Read, check and pack every tensor; `progress` gets (layers done, layers in all).

    Raises PackageError for a tensor that is missing, misshapen, not finite or unknown.
    """
    loader = _Loader(config, source)
    width, feed_width, layers = config.width, config.feed_width, config.layers
    query_width, kv_width = config.heads * config.head_width, config.kv_heads * config.head_width
    qkv = _panels(layers, config.qkv_width, width)
    output = _panels(layers, width, query_width)
    gate_up = _panels(layers, 2 * feed_width, width)
    down = _panels(layers, width, feed_width)
    qkv_bias = np.zeros((layers, config.qkv_width), np.float32)
    attention_norm = np.empty((layers, width), np.float32)
    feed_norm = np.empty((layers, width), np.float32)
    head_norms = np.empty((2, layers if config.qk_norm else 0, config.head_width), np.float32)
    projections = (("q_proj", query_width), ("k_proj", kv_width), ("v_proj", kv_width))
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        first = 0
        for name, outputs in projections:
            panels = slice(first // PANEL, (first + outputs) // PANEL)
            _pack(loader.layer(layer, f"self_attn.{name}", outputs, width), qkv[layer, panels])
            if config.qkv_bias:
                bias = loader.tensor(f"{prefix}.self_attn.{name}.bias", outputs)
                qkv_bias[layer, first : first + outputs] = bias
            first += outputs
        _pack(loader.layer(layer, "self_attn.o_proj", width, query_width), output[layer])
        _pack(loader.layer(layer, "mlp.gate_proj", feed_width, width), gate_up[layer, 0::2])
        _pack(loader.layer(layer, "mlp.up_proj", feed_width, width), gate_up[layer, 1::2])
        _pack(loader.layer(layer, "mlp.down_proj", width, feed_width), down[layer])
        attention_norm[layer] = loader.tensor(f"{prefix}.input_layernorm.weight", width)
        feed_norm[layer] = loader.tensor(f"{prefix}.post_attention_layernorm.weight", width)
        for norms, part in zip(head_norms, ("q_norm", "k_norm"), strict=True):
            if config.qk_norm:
                name = f"{prefix}.self_attn.{part}.weight"
                norms[layer] = loader.tensor(name, config.head_width)
        if progress is not None:
            progress(layer + 1, layers)
    embedding = loader.table("model.embed_tokens.weight")
    head = embedding if config.tied_embeddings else loader.table("lm_head.weight")
    final_norm = loader.tensor("model.norm.weight", width)
    if loader.unread:
        names = ", ".join(sorted(loader.unread)[:3])
        raise PackageError(f"{len(loader.unread)} tensors no engine here understands: {names}")
    cosines, sines = _rotary(config)
    return Weights(
        qkv=qkv.reshape(-1),
        qkv_bias=qkv_bias.reshape(-1),
        output=output.reshape(-1),
        gate_up=gate_up.reshape(-1),
        down=down.reshape(-1),
        head=head,
        embedding=embedding,
        attention_norm=attention_norm.reshape(-1),
        feed_norm=feed_norm.reshape(-1),
        final_norm=np.array(final_norm),
        query_norm=head_norms[0].reshape(-1),
        key_norm=head_norms[1].reshape(-1),
        cosines=cosines,
        sines=sines,
    )


def _rotary(config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    shape = (config.context_tokens, config.head_width // 2)
    cosines, sines = np.empty(shape, np.float32), np.empty(shape, np.float32)
    divisors = np.array(config.rope_divisors or (1.0,) * shape[1])
    rotary_tables(config.rope_base, divisors, cosines, sines)
    return cosines, sines
