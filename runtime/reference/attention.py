"""Attention of one layer: rotary embedding, the cache of keys and values, causal softmax."""

# ruff: noqa: PLR0913, PLR0917 - compiled functions take their operands one by one

import numpy as np

from runtime.intrinsics import PANEL
from runtime.kernels import helper
from runtime.maths import exp32
from runtime.reference.arrays import Cache, Scratch, Shape, Weights
from runtime.reference.products import GROUP, add_product, multiply, normalize, wait_for_others

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


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
def store_keys_and_values(
    layer: int,
    shape: Shape,
    weights: Weights,
    cache: Cache,
    projected: np.ndarray,
    start: int,
    rows: int,
    epsilon: np.float32,
    part: int,
    parts: int,
) -> None:
    """Norm (if the model has it) and rotate queries and keys; keys and values go to the cache."""
    half = shape.head_width // 2
    query_width = shape.heads * shape.head_width
    stride = query_width + 2 * shape.kv_heads * shape.head_width
    layer_at = layer * shape.kv_heads * shape.head_width * cache.capacity
    for row in range(part, rows, parts):
        position = start + row
        panel_at = (position // PANEL) * shape.head_width * PANEL + position % PANEL
        for head in range(shape.heads + shape.kv_heads):
            offset = row * stride + head * shape.head_width
            if weights.query_norm.size > 0:
                gain = weights.query_norm if head < shape.heads else weights.key_norm
                normalize(
                    projected, offset, gain, layer * shape.head_width, shape.head_width, epsilon,
                    projected, offset,
                )  # fmt: skip
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
    store_keys_and_values(
        layer, shape, weights, cache, scratch.projected, start, rows, epsilon, part, parts
    )
    wait_for_others(barrier, parts)
    attend(layer, shape, cache, scratch, start, rows, part, parts)
    wait_for_others(barrier, parts)
    add_product(
        scratch.attended, shape.heads * shape.head_width, weights.output, layer, scratch, rows,
        width, part, parts,
    )  # fmt: skip
    wait_for_others(barrier, parts)
