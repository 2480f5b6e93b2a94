"""Attention of one layer: rotary embedding, the cache of keys and values, causal softmax."""

# ruff: noqa: PLR0913, PLR0917 - compiled functions take their operands one by one

import numpy as np

from runtime.intrinsics import PANEL
from runtime.kernels import helper
from runtime.maths import exp32
from runtime.reference.arrays import Cache, Scratch, Shape, Span, Weights, cache_of, span_at
from runtime.reference.products import (
    GROUP,
    add_product,
    multiply,
    multiply_matrix,
    normalize,
    wait_for_others,
)

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
    span: Span,
    projected: np.ndarray,
    epsilon: np.float32,
    part: int,
    parts: int,
) -> None:
    """Norm (if the model has it) and rotate queries and keys; keys and values go to the cache."""
    half = shape.head_width // 2
    query_width = shape.heads * shape.head_width
    stride = query_width + 2 * shape.kv_heads * shape.head_width
    cache = cache_of(span, shape)
    layer_at = layer * shape.kv_heads * shape.head_width * cache.capacity
    for row in range(span.first_row, span.first_row + span.rows):
        if row % parts != part:
            continue
        position = span.start + row - span.first_row
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
def attend_group(
    scratch: Scratch,
    scores_at: int,
    query_at: int,
    query_stride: int,
    cache: Cache,
    cache_at: int,
    head_width: int,
    count: int,
    first_limit: int,
    limit_step: int,
    out_at: int,
    out_stride: int,
) -> None:
    """Attention of `count` queries that share keys and values.

    Query number r sees the first `first_limit + r * limit_step` keys.
    """
    capacity = cache.capacity
    keys = first_limit + (count - 1) * limit_step
    scale = _ONE / np.sqrt(np.float32(head_width))
    totals = np.empty(GROUP, np.float32)
    multiply(
        scratch.projected, query_at, query_stride, count,
        cache.keys, cache_at, head_width * PANEL, (keys + PANEL - 1) // PANEL, head_width,
        scratch.scores, scores_at, capacity,
    )  # fmt: skip
    for row in range(count):
        limit = first_limit + row * limit_step
        totals[row] = soften(scratch.scores, scores_at + row * capacity, limit, keys, scale)
    multiply(
        scratch.scores, scores_at, capacity, count,
        cache.values, cache_at, capacity * PANEL, head_width // PANEL, keys,
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
    span: Span,
    scratch: Scratch,
    part: int,
    parts: int,
) -> None:
    """Causal attention of a span's rows: groups of rows of one head, or for a single row groups of
    the heads that share a key head.

    A row's later keys weigh exactly 0, and adding 0 * value to a sum changes no bit of it, so it
    does not matter with which others a query shares a group.
    """
    head_width = shape.head_width
    query_width = shape.heads * head_width
    stride = query_width + 2 * shape.kv_heads * head_width
    sharing = shape.heads // shape.kv_heads
    cache = cache_of(span, shape)
    scores_at = scratch.scores.size // parts * part
    item = 0
    for kv_head in range(shape.kv_heads):
        cache_at = (layer * shape.kv_heads + kv_head) * head_width * cache.capacity
        if span.rows == 1:
            for first in range(0, sharing, GROUP):
                item += 1
                if (item + span.first_row) % parts == part:
                    column = (kv_head * sharing + first) * head_width
                    attend_group(
                        scratch, scores_at, span.first_row * stride + column, head_width,
                        cache, cache_at, head_width, min(GROUP, sharing - first),
                        span.start + 1, 0, span.first_row * query_width + column, head_width,
                    )  # fmt: skip
            continue
        for head in range(kv_head * sharing, (kv_head + 1) * sharing):
            for first in range(0, span.rows, GROUP):
                item += 1
                if item % parts == part:
                    row = span.first_row + first
                    column = head * head_width
                    attend_group(
                        scratch, scores_at, row * stride + column, stride,
                        cache, cache_at, head_width, min(GROUP, span.rows - first),
                        span.start + first + 1, 1, row * query_width + column, query_width,
                    )  # fmt: skip


@helper
def attention_stage(
    layer: int,
    shape: Shape,
    weights: Weights,
    spans: np.ndarray,
    scratch: Scratch,
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
    multiply_matrix(
        scratch.normed, normed_at, width, rows,
        weights.qkv, layer * panels + first, last - first, width,
        scratch, part, parts, scratch.projected, first * PANEL, columns,
    )  # fmt: skip
    for row in range(rows):
        for column in range(first * PANEL, last * PANEL):
            scratch.projected[row * columns + column] += weights.qkv_bias[layer * columns + column]
    wait_for_others(barrier, parts)
    for index in range(spans.shape[0]):
        store_keys_and_values(
            layer, shape, weights, span_at(spans, index), scratch.projected, epsilon, part, parts
        )
    wait_for_others(barrier, parts)
    for index in range(spans.shape[0]):
        attend(layer, shape, span_at(spans, index), scratch, part, parts)
    wait_for_others(barrier, parts)
    add_product(
        scratch.attended, shape.heads * shape.head_width, weights.output, layer, scratch, rows,
        width, part, parts,
    )  # fmt: skip
    wait_for_others(barrier, parts)
