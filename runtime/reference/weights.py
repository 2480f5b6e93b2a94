"""From a package's tensors to the packed arrays of the forward pass."""

from collections.abc import Callable

import numpy as np

from runtime.errors import PackageError
from runtime.intrinsics import PANEL
from runtime.maths import rotary_tables
from runtime.model_config import ModelConfig
from runtime.packages import REFERENCE_PROFILE, REFERENCE_Q8_PROFILE
from runtime.reference.arrays import BLOCK, Matrix, Shape, Weights
from runtime.tensors import Quantized, QuantizedSource, TensorSource

_IGNORED_SUFFIXES = ("rotary_emb.inv_freq", "rope_freqs.weight")
"""Some checkpoints store these frequencies or their divisors; the config has them."""
_GREATEST_QUANT = np.float32(127)
_MATRICES_PER_LAYER = 4
"""Query, key and value together; output; gate and up together; down."""


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


def _pack(rows: np.ndarray, out: np.ndarray) -> None:
    """Write [outputs, inputs] into out, [outputs / 16 rounded up, inputs, 16], the rest zero."""
    whole = rows.shape[0] // PANEL
    inputs = rows.shape[1]
    out[:whole] = rows[: whole * PANEL].reshape(whole, PANEL, inputs).transpose(0, 2, 1)
    if whole < out.shape[0]:
        out[whole] = 0
        out[whole, :, : rows.shape[0] - whole * PANEL] = rows[whole * PANEL :].T


def quantize(rows: np.ndarray) -> Quantized:
    """float32[outputs, inputs] in 8 bits: the rule of the profile reference-q8-1.

    The scale of a block of 32 inputs is its greatest magnitude / 127, in float32; a weight's
    integer is weight / scale rounded to the nearest, of two as near the even one; zero where the
    scale is.
    """
    blocks = rows.reshape(rows.shape[0], -1, BLOCK)
    scales = np.abs(blocks).max(axis=2) / _GREATEST_QUANT
    divisors = np.where(scales > 0, scales, np.float32(1))[:, :, np.newaxis]
    # Scales below the smallest normal number lose bits; the clip keeps their integers in range.
    quants = np.clip(np.rint(blocks / divisors), -_GREATEST_QUANT, _GREATEST_QUANT)
    return Quantized(quants.astype(np.int8).reshape(rows.shape), scales)


class _Packer:
    """One `Matrix` in the making."""

    def __init__(self, layers: int, outputs: int, inputs: int, quantized: bool) -> None:
        panels = _padded(outputs) // PANEL
        floats, integers = (0, layers) if quantized else (layers, 0)
        self.quantized = quantized
        self._values = np.empty((floats, panels, inputs, PANEL), np.float32)
        self._quants = np.empty((integers, panels, inputs, PANEL), np.int8)
        self._scales = np.empty((integers, panels, inputs // BLOCK, PANEL), np.float32)

    def put(self, layer: int, panels: slice, rows: np.ndarray | Quantized) -> None:
        """Set the weights of some of a layer's panels."""
        if isinstance(rows, Quantized):
            _pack(rows.quants, self._quants[layer, panels])
            _pack(rows.scales, self._scales[layer, panels])
        else:
            _pack(rows, self._values[layer, panels])

    def matrix(self) -> Matrix:
        """What was put, in the kernels' form."""
        return Matrix(self._values.reshape(-1), self._quants.reshape(-1), self._scales.reshape(-1))


class _Loader:
    def __init__(
        self,
        config: ModelConfig,
        source: TensorSource,
        eight_bits: bool,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.config = config
        self.source = source
        self.eight_bits = eight_bits
        self._progress = progress
        self._done = 0
        self.unread = {name for name in source.names() if not name.endswith(_IGNORED_SUFFIXES)}

    def tensor(self, name: str, *shape: int) -> np.ndarray:
        values = self.source.read(name)
        self._check(name, values, shape)
        return values

    def _check(self, name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
        self.unread.discard(name)
        if values.shape != shape:
            raise PackageError(f"tensor {name} has shape {values.shape}, config.json says {shape}")
        if not np.isfinite(values).all():
            raise PackageError(f"tensor {name} holds values that are not finite")

    def _stored(self, name: str, outputs: int, inputs: int) -> Quantized | None:
        """The matrix in 8 bits, if the file has it so."""
        if not isinstance(self.source, QuantizedSource):
            return None
        found = self.source.read_quantized(name)
        if found is not None:
            self._check(name, found.scales, (outputs, inputs // BLOCK))
        return found

    def packer(self, layers: int, outputs: int, inputs: int, names: list[str]) -> _Packer:
        """For the matrix made of these tensors: 8 bits if the profile says so or all are stored
        so."""
        if self.eight_bits and inputs % BLOCK:
            raise PackageError(
                f"tensor {names[0]} has {inputs} inputs; {REFERENCE_Q8_PROFILE} needs a multiple "
                f"of {BLOCK}"
            )
        source = self.source
        quantized = self.eight_bits or (
            isinstance(source, QuantizedSource)
            and all(source.read_quantized(name) is not None for name in names)
        )
        return _Packer(layers, outputs, inputs, quantized)

    def rows(self, packer: _Packer, name: str, outputs: int, inputs: int) -> np.ndarray | Quantized:
        """A tensor as the packer wants it."""
        if packer.quantized:
            stored = self._stored(name, outputs, inputs)
            return stored if stored is not None else quantize(self.tensor(name, outputs, inputs))
        return self.tensor(name, outputs, inputs)

    def layers(
        self,
        parts: tuple[tuple[str, int], ...],
        inputs: int,
        alternating: bool = False,
    ) -> Matrix:
        """One matrix of each layer, made of (tensor, outputs) parts.

        Their panels follow each other, or alternate.
        """
        config = self.config
        names = [
            f"model.layers.{layer}.{part}.weight"
            for layer in range(config.layers)
            for part, _ in parts
        ]
        packer = self.packer(config.layers, sum(size for _, size in parts), inputs, names)
        for layer in range(config.layers):
            first = 0
            for number, (part, outputs) in enumerate(parts):
                last = first + outputs // PANEL
                panels = slice(number, None, len(parts)) if alternating else slice(first, last)
                name = f"model.layers.{layer}.{part}.weight"
                packer.put(layer, panels, self.rows(packer, name, outputs, inputs))
                first = last
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, _MATRICES_PER_LAYER * config.layers)
        return packer.matrix()

    def table(self, name: str) -> Matrix:
        """The embedding table or the head."""
        config = self.config
        packer = self.packer(1, config.vocabulary, config.width, [name])
        rows = self.rows(packer, name, config.vocabulary, config.width)
        packer.put(0, slice(None), rows)
        return packer.matrix()

    def vectors(self, part: str, size: int) -> np.ndarray:
        """One vector of each layer, flat."""
        names = [f"model.layers.{layer}.{part}" for layer in range(self.config.layers)]
        return np.concatenate([self.tensor(name, size) for name in names])

    def biases(self, projections: tuple[tuple[str, int], ...]) -> np.ndarray:
        """Biases of the projections of each layer, flat; zero where the model has none."""
        config = self.config
        if not config.qkv_bias:
            return np.zeros(config.layers * config.qkv_width, np.float32)
        return np.concatenate(
            [
                self.tensor(f"model.layers.{layer}.{part}.bias", outputs)
                for layer in range(config.layers)
                for part, outputs in projections
            ]
        )


def load_weights(
    config: ModelConfig,
    source: TensorSource,
    progress: Callable[[int, int], None] | None = None,
    profile: str = REFERENCE_PROFILE,
) -> Weights:
    """Read, check and pack every tensor; `progress` gets (matrices done, matrices in all).

    In the profile reference-q8-1 every matrix is kept in 8 bits, rounded by `quantize` unless it is
    stored in 8 bits already. In reference-float32-1 only what is stored so stays so: its floats
    would be the same numbers, four times as large.
    Raises PackageError for a tensor that is missing, misshapen, not finite or unknown.
    """
    loader = _Loader(config, source, profile == REFERENCE_Q8_PROFILE, progress)
    width, feed_width = config.width, config.feed_width
    query_width, kv_width = config.heads * config.head_width, config.kv_heads * config.head_width
    projections = (
        ("self_attn.q_proj", query_width),
        ("self_attn.k_proj", kv_width),
        ("self_attn.v_proj", kv_width),
    )
    qkv = loader.layers(projections, width)
    output = loader.layers((("self_attn.o_proj", width),), query_width)
    gates = (("mlp.gate_proj", feed_width), ("mlp.up_proj", feed_width))
    gate_up = loader.layers(gates, width, alternating=True)
    down = loader.layers((("mlp.down_proj", width),), feed_width)
    embedding = loader.table("model.embed_tokens.weight")
    head = embedding if config.tied_embeddings else loader.table("lm_head.weight")
    empty = np.empty(0, np.float32)
    norms = ("q_norm", "k_norm")
    head_norms = [
        loader.vectors(f"self_attn.{name}.weight", config.head_width) if config.qk_norm else empty
        for name in norms
    ]
    cosines, sines = _rotary(config)
    weights = Weights(
        qkv=qkv,
        output=output,
        gate_up=gate_up,
        down=down,
        head=head,
        embedding=embedding,
        qkv_bias=loader.biases(projections),
        attention_norm=loader.vectors("input_layernorm.weight", width),
        feed_norm=loader.vectors("post_attention_layernorm.weight", width),
        final_norm=np.array(loader.tensor("model.norm.weight", width)),
        query_norm=head_norms[0],
        key_norm=head_norms[1],
        cosines=cosines,
        sines=sines,
    )
    if loader.unread:
        names = ", ".join(sorted(loader.unread)[:3])
        raise PackageError(f"{len(loader.unread)} tensors no engine here understands: {names}")
    return weights


def _rotary(config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    shape = (config.context_tokens, config.head_width // 2)
    cosines, sines = np.empty(shape, np.float32), np.empty(shape, np.float32)
    divisors = np.array(config.rope_divisors or (1.0,) * shape[1])
    rotary_tables(config.rope_base, divisors, cosines, sines)
    return cosines, sines
