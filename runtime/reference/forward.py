"""The forward pass over a block of tokens of one sequence, as one kernel that runs without the GIL.

Work is shared by giving each of `parts` threads its own columns, heads or rows: an output has one
owner, who sums it alone and in order. Threads meet at a barrier between stages. See the package
docstring for the rules. Inner loops run over slices: numba lets an index that it can't see to be
positive wrap around, and LLVM does not vectorise that.
"""

# ruff: noqa: PLR0913, PLR0917 - compiled functions take their operands one by one

from typing import NamedTuple

import numpy as np
from numba import types

from runtime.intrinsics import PANEL, atomic_add, make_tile, yield_processor
from runtime.kernels import helper, kernel
from runtime.maths import exp32

GROUP = 6
"""Rows that share one pass over a weight panel: as many as AVX2 registers hold."""
_WIDE = 4
"""Panels that share one pass over a single row."""
_SPINS_BEFORE_YIELD = 512

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)

_tile_6 = make_tile(6, 1)
_tile_3 = make_tile(3, 1)
_tile_1 = make_tile(1, 1)
_tile_1_wide = make_tile(1, _WIDE)


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
WEIGHTS_TYPE = types.NamedTuple([_FLAT] * 10 + [_TABLE] * 2, Weights)
SCRATCH_TYPE = types.NamedUniTuple(_FLAT, len(Scratch._fields), Scratch)
CACHE_TYPE = types.NamedTuple([_FLAT, _FLAT, types.int64], Cache)


@helper
def multiply(
    x: np.ndarray,
    x_offset: int,
    x_stride: int,
    rows: int,
    w: np.ndarray,
    w_offset: int,
    w_stride: int,
    panels: int,
    depth: int,
    y: np.ndarray,
    y_offset: int,
    y_stride: int,
) -> None:
    """y[r, 16 p + c] = sum over i of x[r, i] * w[p, i, c], for rows r and panels p; strides in
    elements."""
    if rows == 1:
        panel = 0
        while panel + _WIDE <= panels:
            _tile_1_wide(
                x, x_offset, 0, w, w_offset + panel * w_stride, w_stride, depth,
                y, y_offset + panel * PANEL, 0,
            )  # fmt: skip
            panel += _WIDE
        while panel < panels:
            _tile_1(
                x, x_offset, 0, w, w_offset + panel * w_stride, w_stride, depth,
                y, y_offset + panel * PANEL, 0,
            )  # fmt: skip
            panel += 1
        return
    for panel in range(panels):
        w_at = w_offset + panel * w_stride
        y_at = y_offset + panel * PANEL
        row = 0
        while row + 6 <= rows:
            _tile_6(
                x, x_offset + row * x_stride, x_stride, w, w_at, w_stride, depth,
                y, y_at + row * y_stride, y_stride,
            )  # fmt: skip
            row += 6
        while row + 3 <= rows:
            _tile_3(
                x, x_offset + row * x_stride, x_stride, w, w_at, w_stride, depth,
                y, y_at + row * y_stride, y_stride,
            )  # fmt: skip
            row += 3
        while row < rows:
            _tile_1(
                x, x_offset + row * x_stride, x_stride, w, w_at, w_stride, depth,
                y, y_at + row * y_stride, y_stride,
            )  # fmt: skip
            row += 1


@helper
def wait_for_others(barrier: np.ndarray, parts: int) -> None:
    """Return when all parts have called this as often as the caller has."""
    if parts == 1:
        return
    ticket = atomic_add(barrier, 1)
    target = (ticket // parts + 1) * parts
    spins = 0
    while atomic_add(barrier, 0) < target:
        spins += 1
        if spins > _SPINS_BEFORE_YIELD:
            yield_processor()


@helper
def normalize(
    x: np.ndarray,
    x_offset: int,
    gain: np.ndarray,
    gain_offset: int,
    width: int,
    epsilon: np.float32,
    y: np.ndarray,
    y_offset: int,
) -> None:
    """RMS norm of one row: y = gain * (x / sqrt(mean of squares + epsilon))."""
    source = x[x_offset : x_offset + width]
    gains = gain[gain_offset : gain_offset + width]
    target = y[y_offset : y_offset + width]
    total = _ZERO
    for index in range(width):
        total += source[index] * source[index]
    inverse = _ONE / np.sqrt(total / np.float32(width) + epsilon)
    for index in range(width):
        target[index] = gains[index] * (source[index] * inverse)


@helper
def rotate(
    values: np.ndarray,
    offset: int,
    half: int,
    cosines: np.ndarray,
    sines: np.ndarray,
    position: int,
) -> None:
    """Rotary embedding of one head in place: component i turns with component i + half."""
    for index in range(half):
        first = values[offset + index]
        second = values[offset + half + index]
        cosine = cosines[position, index]
        sine = sines[position, index]
        values[offset + index] = first * cosine - second * sine
        values[offset + half + index] = second * cosine + first * sine


@helper
def embed(
    tokens: np.ndarray, weights: Weights, width: int, hidden: np.ndarray, part: int, parts: int
) -> None:
    """Rows of the embedding table, read out of its panels."""
    for row in range(part, tokens.size, parts):
        panel = tokens[row] // PANEL
        lane = tokens[row] - panel * PANEL
        base = panel * width * PANEL + lane
        for index in range(width):
            hidden[row * width + index] = weights.embedding[base + index * PANEL]


@helper
def store_keys_and_values(
    layer: int,
    shape: Shape,
    weights: Weights,
    cache: Cache,
    projected: np.ndarray,
    start: int,
    rows: int,
    part: int,
    parts: int,
) -> None:
    """Rotate queries in place; rotate keys and put keys and values into the cache."""
    half = shape.head_width // 2
    query_width = shape.heads * shape.head_width
    stride = query_width + 2 * shape.kv_heads * shape.head_width
    layer_at = layer * shape.kv_heads * shape.head_width * cache.capacity
    for row in range(part, rows, parts):
        position = start + row
        panel_at = (position // PANEL) * shape.head_width * PANEL + position % PANEL
        for head in range(shape.heads + shape.kv_heads):
            offset = row * stride + head * shape.head_width
            rotate(projected, offset, half, weights.cosines, weights.sines, position)
        for head in range(shape.kv_heads):
            head_at = layer_at + head * shape.head_width * cache.capacity
            key_at = row * stride + query_width + head * shape.head_width
            value_at = key_at + shape.kv_heads * shape.head_width
            for index in range(shape.head_width):
                cache.keys[head_at + panel_at + index * PANEL] = projected[key_at + index]
                column = index // PANEL
                target = head_at + (column * cache.capacity + position) * PANEL + index % PANEL
                cache.values[target] = projected[value_at + index]


@helper
def soften(scores: np.ndarray, offset: int, limit: int, end: int, scale: np.float32) -> np.float32:
    """Turn scores[offset:][:limit] into e^(scaled score - greatest), zero up to `end`; returns
    their sum."""
    known = scores[offset : offset + limit]
    greatest = known[0] * scale
    for index in range(known.size):
        value = known[index] * scale
        known[index] = value
        greatest = value if value > greatest else greatest
    for index in range(known.size):
        known[index] = exp32(known[index] - greatest)
    total = _ZERO
    for index in range(known.size):
        total += known[index]
    scores[offset + limit : offset + end] = _ZERO
    return total


@helper
def multiply_softened(
    scratch: Scratch,
    scores_at: int,
    cache: Cache,
    cache_at: int,
    head_width: int,
    first_position: int,
    count: int,
    keys: int,
    out_at: int,
    out_stride: int,
    scale: np.float32,
) -> None:
    """Softmax of `count` rows of scores, times the values, divided by the softmax's sums."""
    totals = np.empty(GROUP, np.float32)
    for row in range(count):
        totals[row] = soften(
            scratch.scores, scores_at + row * cache.capacity, first_position + row + 1, keys, scale
        )
    multiply(
        scratch.scores, scores_at, cache.capacity, count,
        cache.values, cache_at, cache.capacity * PANEL, head_width // PANEL, keys,
        scratch.attended, out_at, out_stride,
    )  # fmt: skip
    for row in range(count):
        target = scratch.attended[out_at + row * out_stride :][:head_width]
        for index in range(target.size):
            target[index] /= totals[row]


@helper
def attend(
    layer: int,
    shape: Shape,
    cache: Cache,
    scratch: Scratch,
    start: int,
    rows: int,
    part: int,
    parts: int,
) -> None:
    """Causal attention of each head for groups of rows.

    A row's later keys weigh exactly 0, and adding 0 * value to a sum changes no bit of it, so it
    does not matter with which rows a row shares a group.
    """
    head_width = shape.head_width
    query_width = shape.heads * head_width
    stride = query_width + 2 * shape.kv_heads * head_width
    scale = _ONE / np.sqrt(np.float32(head_width))
    own_scores = part * GROUP * cache.capacity
    item = 0
    for head in range(shape.heads):
        kv_head = head // (shape.heads // shape.kv_heads)
        cache_at = (layer * shape.kv_heads + kv_head) * head_width * cache.capacity
        for first in range(0, rows, GROUP):
            item += 1
            if item % parts != part:
                continue
            count = min(GROUP, rows - first)
            keys = start + first + count
            multiply(
                scratch.projected, first * stride + head * head_width, stride, count,
                cache.keys, cache_at, head_width * PANEL, (keys + PANEL - 1) // PANEL, head_width,
                scratch.scores, own_scores, cache.capacity,
            )  # fmt: skip
            out_at = first * query_width + head * head_width
            multiply_softened(
                scratch, own_scores, cache, cache_at, head_width, start + first, count, keys,
                out_at, query_width, scale,
            )  # fmt: skip


@helper
def add_product(
    x: np.ndarray,
    depth: int,
    w: np.ndarray,
    layer: int,
    scratch: Scratch,
    rows: int,
    width: int,
    part: int,
    parts: int,
) -> None:
    """hidden += x times one layer of w, in this part's columns."""
    panels = width // PANEL
    first = panels * part // parts
    last = panels * (part + 1) // parts
    stride = depth * PANEL
    multiply(
        x, 0, depth, rows, w, (layer * panels + first) * stride, stride, last - first, depth,
        scratch.projected, first * PANEL, width,
    )  # fmt: skip
    for row in range(rows):
        target = scratch.hidden[row * width + first * PANEL : row * width + last * PANEL]
        source = scratch.projected[row * width + first * PANEL : row * width + last * PANEL]
        for column in range(target.size):
            target[column] += source[column]


@helper
def attention_stage(
    layer: int,
    shape: Shape,
    weights: Weights,
    cache: Cache,
    scratch: Scratch,
    start: int,
    rows: int,
    epsilon: np.float32,
    part: int,
    parts: int,
    barrier: np.ndarray,
) -> None:
    """hidden += attention(norm(hidden)) of one layer."""
    width = shape.width
    normed_at = part * rows * width
    for row in range(rows):
        normalize(
            scratch.hidden, row * width, weights.attention_norm, layer * width, width, epsilon,
            scratch.normed, normed_at + row * width,
        )  # fmt: skip
    columns = (shape.heads + 2 * shape.kv_heads) * shape.head_width
    panels = columns // PANEL
    first = panels * part // parts
    last = panels * (part + 1) // parts
    stride = width * PANEL
    multiply(
        scratch.normed, normed_at, width, rows,
        weights.qkv, (layer * panels + first) * stride, stride, last - first, width,
        scratch.projected, first * PANEL, columns,
    )  # fmt: skip
    for row in range(rows):
        for column in range(first * PANEL, last * PANEL):
            scratch.projected[row * columns + column] += weights.qkv_bias[layer * columns + column]
    wait_for_others(barrier, parts)
    store_keys_and_values(layer, shape, weights, cache, scratch.projected, start, rows, part, parts)
    wait_for_others(barrier, parts)
    attend(layer, shape, cache, scratch, start, rows, part, parts)
    wait_for_others(barrier, parts)
    add_product(
        scratch.attended, shape.heads * shape.head_width, weights.output, layer, scratch, rows,
        width, part, parts,
    )  # fmt: skip
    wait_for_others(barrier, parts)


@helper
def feed_stage(
    layer: int,
    shape: Shape,
    weights: Weights,
    scratch: Scratch,
    rows: int,
    epsilon: np.float32,
    part: int,
    parts: int,
    barrier: np.ndarray,
) -> None:
    """hidden += down(silu(gate) * up) of norm(hidden) of one layer."""
    width = shape.width
    normed_at = part * rows * width
    for row in range(rows):
        normalize(
            scratch.hidden, row * width, weights.feed_norm, layer * width, width, epsilon,
            scratch.normed, normed_at + row * width,
        )  # fmt: skip
    pairs = shape.feed_width // PANEL
    first = pairs * part // parts
    last = pairs * (part + 1) // parts
    stride = width * PANEL
    columns = 2 * shape.feed_width
    multiply(
        scratch.normed, normed_at, width, rows,
        weights.gate_up, 2 * (layer * pairs + first) * stride, stride, 2 * (last - first), width,
        scratch.projected, 2 * first * PANEL, columns,
    )  # fmt: skip
    for row in range(rows):
        for pair in range(first, last):
            source = scratch.projected[row * columns + 2 * pair * PANEL :][: 2 * PANEL]
            target = scratch.active[row * shape.feed_width + pair * PANEL :][:PANEL]
            for lane in range(PANEL):
                gate = source[lane]
                silu = gate / (_ONE + exp32(-gate))
                target[lane] = silu * source[PANEL + lane]
    wait_for_others(barrier, parts)
    add_product(
        scratch.active, shape.feed_width, weights.down, layer, scratch, rows, width, part, parts
    )
    wait_for_others(barrier, parts)


@helper
def head_stage(
    shape: Shape,
    weights: Weights,
    scratch: Scratch,
    rows: int,
    first_logit_row: int,
    epsilon: np.float32,
    logits: np.ndarray,
    part: int,
    parts: int,
) -> None:
    """Logits of the rows from first_logit_row on; columns beyond the vocabulary are minus
    infinity."""
    width = shape.width
    normed_at = part * rows * width
    for row in range(first_logit_row, rows):
        normalize(
            scratch.hidden, row * width, weights.final_norm, 0, width, epsilon,
            scratch.normed, normed_at + row * width,
        )  # fmt: skip
    panels = shape.vocabulary_padded // PANEL
    first = panels * part // parts
    last = panels * (part + 1) // parts
    stride = width * PANEL
    multiply(
        scratch.normed, normed_at + first_logit_row * width, width, rows - first_logit_row,
        weights.head, first * stride, stride, last - first, width,
        logits, first * PANEL, shape.vocabulary_padded,
    )  # fmt: skip
    for row in range(rows - first_logit_row):
        for column in range(max(shape.vocabulary, first * PANEL), last * PANEL):
            logits[row * shape.vocabulary_padded + column] = -np.inf


@kernel(
    types.void(
        types.int64[::1],
        types.int64,
        SHAPE_TYPE,
        WEIGHTS_TYPE,
        CACHE_TYPE,
        SCRATCH_TYPE,
        types.float32,
        types.int64,
        types.float32[::1],
        types.int64,
        types.int64,
        types.int64[::1],
    )
)
def forward_block(
    tokens: np.ndarray,
    start: int,
    shape: Shape,
    weights: Weights,
    cache: Cache,
    scratch: Scratch,
    epsilon: np.float32,
    first_logit_row: int,
    logits: np.ndarray,
    part: int,
    parts: int,
    barrier: np.ndarray,
) -> None:
    """One thread's part of the model over tokens (int64[rows]) at positions start, start + 1, ...

    Fills the cache at these positions and logits, float32[rows - first_logit_row,
    vocabulary_padded] flat. All parts must be called, each on its own thread, with the same
    arguments but `part`; barrier is int64[1], zero before its first use.
    """
    rows = tokens.size
    embed(tokens, weights, shape.width, scratch.hidden, part, parts)
    wait_for_others(barrier, parts)
    for layer in range(shape.layers):
        attention_stage(
            layer, shape, weights, cache, scratch, start, rows, epsilon, part, parts, barrier
        )
        feed_stage(layer, shape, weights, scratch, rows, epsilon, part, parts, barrier)
    if first_logit_row < rows:
        head_stage(shape, weights, scratch, rows, first_logit_row, epsilon, logits, part, parts)
