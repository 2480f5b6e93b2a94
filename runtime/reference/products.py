"""What every stage of the forward pass is made of: products with packed weights, RMS norm, and the
barrier at which threads meet.

Inner loops run over slices: numba lets an index that it can't see to be positive wrap around, and
LLVM does not vectorise that.
"""

# ruff: noqa: PLR0913, PLR0917 - compiled functions take their operands one by one

import numpy as np

from runtime.intrinsics import PANEL, atomic_add, make_tile, yield_processor
from runtime.kernels import helper
from runtime.reference.arrays import Scratch

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
