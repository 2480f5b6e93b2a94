"""What the kernels of the reference engine work on: dimensions, packed weights, caches, scratch."""

from typing import NamedTuple

import numpy as np
from numba import types


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


class Weights(NamedTuple):
    """Flat float32 arrays, packed [layer][panel of 16 outputs][input][16]."""

    qkv: np.ndarray
    """Outputs: query heads, key heads, value heads."""
    qkv_bias: np.ndarray
    """[layer][query + key + value width], zero where a model has none."""
    output: np.ndarray
    gate_up: np.ndarray
    """Panels alternate: gate, up, gate, up."""
    down: np.ndarray
    head: np.ndarray
    embedding: np.ndarray
    """[panel of 16 tokens][width][16], the same array as head when tied."""
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
    """Working memory of one block, flat float32, for `rows` tokens."""

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
    """[parts][GROUP][capacity]."""


class Cache(NamedTuple):
    """Keys [layer][kv head][panel of 16 tokens][head_width][16], values [layer][kv head][panel of
    16 head columns][capacity][16], flat float32."""

    keys: np.ndarray
    values: np.ndarray
    capacity: int
    """Tokens, a multiple of 16."""


_FLAT = types.float32[::1]
_TABLE = types.float32[:, ::1]
SHAPE_TYPE = types.NamedUniTuple(types.int64, len(Shape._fields), Shape)
WEIGHTS_TYPE = types.NamedTuple([_FLAT] * 12 + [_TABLE] * 2, Weights)
SCRATCH_TYPE = types.NamedUniTuple(_FLAT, len(Scratch._fields), Scratch)
CACHE_TYPE = types.NamedTuple([_FLAT, _FLAT, types.int64], Cache)
