"""The forward pass over tokens of one or several sequences, as one kernel that runs without the
GIL.

Work is shared by giving each of `parts` threads its own columns, heads or rows: an output has one
owner, who sums it alone and in order. Threads meet at a barrier between stages. See the package
docstring for the rules.
"""

# ruff: noqa: PLR0913, PLR0917 - compiled functions take their operands one by one

import numpy as np
from numba import types

from runtime.intrinsics import PANEL
from runtime.kernels import helper, kernel
from runtime.maths import exp32
from runtime.reference.arrays import (
    SCRATCH_TYPE,
    SHAPE_TYPE,
    WEIGHTS_TYPE,
    Scratch,
    Shape,
    Weights,
)
from runtime.reference.attention import attention_stage
from runtime.reference.products import (
    add_product,
    multiply_matrix,
    normalize,
    wait_for_others,
    weight_of,
)

_ONE = np.float32(1.0)


@helper
def embed(
    tokens: np.ndarray, weights: Weights, width: int, hidden: np.ndarray, part: int, parts: int
) -> None:
    """Rows of the embedding table, read out of its panels."""
    for row in range(part, tokens.size, parts):
        for index in range(width):
            hidden[row * width + index] = weight_of(weights.embedding, width, tokens[row], index)


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
    columns = 2 * shape.feed_width
    multiply_matrix(
        scratch.normed, normed_at, width, rows,
        weights.gate_up, 2 * (layer * pairs + first), 2 * (last - first), width,
        scratch, part, parts, scratch.projected, 2 * first * PANEL, columns,
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
    logit_rows: np.ndarray,
    epsilon: np.float32,
    logits: np.ndarray,
    part: int,
    parts: int,
) -> None:
    """Logits of the rows asked for; columns beyond the vocabulary are minus infinity."""
    width = shape.width
    normed_at = scratch.normed.size // parts * part
    for index in range(logit_rows.size):
        normalize(
            scratch.hidden, logit_rows[index] * width, weights.final_norm, 0, width, epsilon,
            scratch.normed, normed_at + index * width,
        )  # fmt: skip
    panels = shape.vocabulary_padded // PANEL
    first = panels * part // parts
    last = panels * (part + 1) // parts
    multiply_matrix(
        scratch.normed, normed_at, width, logit_rows.size,
        weights.head, first, last - first, width,
        scratch, part, parts, logits, first * PANEL, shape.vocabulary_padded,
    )  # fmt: skip
    for row in range(logit_rows.size):
        for column in range(max(shape.vocabulary, first * PANEL), last * PANEL):
            logits[row * shape.vocabulary_padded + column] = -np.inf


@kernel(
    types.void(
        types.int64[::1],
        types.int64[:, ::1],
        types.int64[::1],
        SHAPE_TYPE,
        WEIGHTS_TYPE,
        SCRATCH_TYPE,
        types.float32,
        types.float32[::1],
        types.int64,
        types.int64,
        types.int64[::1],
    )
)
def forward_pass(
    tokens: np.ndarray,
    spans: np.ndarray,
    logit_rows: np.ndarray,
    shape: Shape,
    weights: Weights,
    scratch: Scratch,
    epsilon: np.float32,
    logits: np.ndarray,
    part: int,
    parts: int,
    barrier: np.ndarray,
) -> None:
    """One thread's part of the model over tokens (int64[rows]) that continue the spans' sequences.

    Fills the spans' caches and logits, float32[len(logit_rows), vocabulary_padded] flat. All parts
    must be called, each on its own thread, with the same arguments but `part`; barrier is int64[1],
    zero before its first use.
    """
    rows = tokens.size
    embed(tokens, weights, shape.width, scratch.hidden, part, parts)
    wait_for_others(barrier, parts)
    for layer in range(shape.layers):
        attention_stage(layer, shape, weights, spans, scratch, rows, epsilon, part, parts, barrier)
        feed_stage(layer, shape, weights, scratch, rows, epsilon, part, parts, barrier)
    if logit_rows.size > 0:
        head_stage(shape, weights, scratch, logit_rows, epsilon, logits, part, parts)
