"""What the kernels of the reference engine work on: dimensions, packed weights, caches, scratch."""

from typing import NamedTuple

import numpy as np
from numba import carray, types

from runtime.intrinsics import address_as_pointer
from runtime.kernels import helper

BLOCK = 32
"""Inputs that share a scale in quantized weights, as in GGUF's Q8_0."""


class Shape(NamedTuple):
    """Dimensions of a model; every width is a multiple of 16, vocabulary rounded up to it as
    `vocabulary_padded`."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    feed_width: int
    vocabulary: int
    vocabulary_padded: int


class Matrix(NamedTuple):
    """Weights of all layers of one kind, [layer][panel of 16 outputs][input][16], flat.

    Either float32 `values`, or int8 `quants` with one float32 scale for each block of 32 inputs of
    an output: `scales` is [layer][panel][block][16], and the weight is the float32 product of the
    two. The other arrays are empty.
    """

    values: np.ndarray
    quants: np.ndarray
    scales: np.ndarray


class Weights(NamedTuple):
    """Matrices, and flat float32 arrays."""

    qkv: Matrix
    """Outputs: query heads, key heads, value heads."""
    output: Matrix
    gate_up: Matrix
    """Panels alternate: gate, up, gate, up."""
    down: Matrix
    head: Matrix
    embedding: Matrix
    """Outputs are the tokens; the same arrays as head when tied."""
    qkv_bias: np.ndarray
    """[layer][query + key + value width], zero where a model has none."""
    attention_norm: np.ndarray
    feed_norm: np.ndarray
    final_norm: np.ndarray
    query_norm: np.ndarray
    """[layer][head_width] as key_norm; both empty when a model has none."""
    key_norm: np.ndarray
    cosines: np.ndarray
    """float32[positions, head_width / 2]."""
    sines: np.ndarray


class Scratch(NamedTuple):
    """Working memory of one pass, flat float32, for `rows` tokens."""

    hidden: np.ndarray
    """[rows][width], the residual stream."""
    normed: np.ndarray
    """[parts][rows][width]."""
    projected: np.ndarray
    """[rows][the widest of qkv, 2 * feed_width and width]."""
    attended: np.ndarray
    """[rows][heads * head_width]."""
    active: np.ndarray
    """[rows][feed_width]."""
    scores: np.ndarray
    """[parts][GROUP][the greatest capacity of a span's cache]."""
    panel: np.ndarray
    """[parts][the most inputs of a matrix][16]: one panel of quantized weights as floats."""


class Cache(NamedTuple):
    """Keys [layer][kv head][panel of 16 tokens][head_width][16], values [layer][kv head][panel of
    16 head columns][capacity][16], flat float32."""

    keys: np.ndarray
    values: np.ndarray
    capacity: int
    """Tokens, a multiple of 16."""


class Span(NamedTuple):
    """Rows of a pass that continue one sequence. A pass takes them as int64[spans, 6]."""

    first_row: int
    rows: int
    start: int
    """Position of the first row in its sequence."""
    capacity: int
    keys_address: int
    """Where the sequence's cache lies in memory; whoever starts the pass keeps it alive."""
    values_address: int


_FLAT = types.float32[::1]
_TABLE = types.float32[:, ::1]
_MATRIX_TYPE = types.NamedTuple([_FLAT, types.int8[::1], _FLAT], Matrix)
SHAPE_TYPE = types.NamedUniTuple(types.int64, len(Shape._fields), Shape)
WEIGHTS_TYPE = types.NamedTuple([_MATRIX_TYPE] * 6 + [_FLAT] * 6 + [_TABLE] * 2, Weights)
SCRATCH_TYPE = types.NamedUniTuple(_FLAT, len(Scratch._fields), Scratch)


@helper
def span_at(spans: np.ndarray, index: int) -> Span:
    """Row `index` of a pass's spans."""
    return Span(
        spans[index, 0],
        spans[index, 1],
        spans[index, 2],
        spans[index, 3],
        spans[index, 4],
        spans[index, 5],
    )


@helper
def cache_of(span: Span, shape: Shape) -> Cache:
    """The cache of a span's sequence, as arrays that own nothing."""
    size = shape.layers * shape.kv_heads * shape.head_width * span.capacity
    return Cache(
        carray(address_as_pointer(span.keys_address), (size,)),
        carray(address_as_pointer(span.values_address), (size,)),
        span.capacity,
    )
