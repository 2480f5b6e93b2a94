"""What every stage of the forward pass is made of: products with packed weights, RMS norm, and the
barrier at which threads meet.

Inner loops run over slices: numba lets an index that it can't see to be positive wrap around, and
LLVM does not vectorise that.
"""

# ruff: noqa: PLR0913, PLR0917 - compiled functions take their operands one by one

import numpy as np

from runtime.intrinsics import PANEL, atomic_add, make_quantized_tile, make_tile, yield_processor
from runtime.kernels import helper
from runtime.reference.arrays import BLOCK, Matrix, Scratch

GROUP = 6
"""Rows that share one pass over a weight panel: as many as AVX2 registers hold."""
_WIDE = 4
"""Panels that share one pass over a single row."""
_SPINS_BEFORE_YIELD = 512

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)

_tile_6 = make_tile(6, 1)
_tile_4 = make_tile(4, 1)
_tile_3 = make_tile(3, 1)
_tile_2 = make_tile(2, 1)
_tile_1 = make_tile(1, 1)
_tile_1_wide = make_tile(1, _WIDE)
_quantized_tile_1 = make_quantized_tile(1, BLOCK)
_quantized_tile_1_wide = make_quantized_tile(_WIDE, BLOCK)


@helper
def multiply_row(
    x: np.ndarray,
    x_offset: int,
    w: np.ndarray,
    w_offset: int,
    w_stride: int,
    panels: int,
    depth: int,
    y: np.ndarray,
    y_offset: int,
) -> None:
    """`multiply` of a single row."""
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


@helper
def multiply_panel(
    x: np.ndarray,
    x_offset: int,
    x_stride: int,
    rows: int,
    w: np.ndarray,
    w_at: int,
    depth: int,
    y: np.ndarray,
    y_at: int,
    y_stride: int,
) -> None:
    """`multiply` of two or more rows with one panel, in tiles of 6, 4, 3 and 2 rows."""
    row = 0
    while row < rows:
        left = rows - row
        x_at = x_offset + row * x_stride
        target = y_at + row * y_stride
        if left >= 9 or left == 6:
            _tile_6(x, x_at, x_stride, w, w_at, 0, depth, y, target, y_stride)
            row += 6
        elif left in (4, 7, 8):
            _tile_4(x, x_at, x_stride, w, w_at, 0, depth, y, target, y_stride)
            row += 4
        elif left in (3, 5):
            _tile_3(x, x_at, x_stride, w, w_at, 0, depth, y, target, y_stride)
            row += 3
        elif left == 2:
            _tile_2(x, x_at, x_stride, w, w_at, 0, depth, y, target, y_stride)
            row += 2
        else:
            _tile_1(x, x_at, x_stride, w, w_at, 0, depth, y, target, y_stride)
            row += 1


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
        multiply_row(x, x_offset, w, w_offset, w_stride, panels, depth, y, y_offset)
        return
    for panel in range(panels):
        multiply_panel(
            x, x_offset, x_stride, rows, w, w_offset + panel * w_stride, depth,
            y, y_offset + panel * PANEL, y_stride,
        )  # fmt: skip


@helper
def dequantize_panel(
    matrix: Matrix, panel: int, depth: int, out: np.ndarray, out_offset: int
) -> None:
    """Write one panel's weights, float32[depth][16]."""
    for block in range(depth // BLOCK):
        at = panel * depth + block * BLOCK
        scales = matrix.scales[at // BLOCK * PANEL :][:PANEL]
        for index in range(BLOCK):
            quants = matrix.quants[(at + index) * PANEL :][:PANEL]
            target = out[out_offset + (block * BLOCK + index) * PANEL :][:PANEL]
            for lane in range(PANEL):
                target[lane] = scales[lane] * np.float32(quants[lane])


@helper
def multiply_matrix(
    x: np.ndarray,
    x_offset: int,
    x_stride: int,
    rows: int,
    matrix: Matrix,
    first_panel: int,
    panels: int,
    depth: int,
    scratch: Scratch,
    part: int,
    parts: int,
    y: np.ndarray,
    y_offset: int,
    y_stride: int,
) -> None:
    """`multiply` with `panels` panels of a matrix from first_panel on.

    A quantized panel is made floats once for all rows; for a single row, in registers.
    """
    stride = depth * PANEL
    if matrix.quants.size == 0:
        multiply(
            x, x_offset, x_stride, rows, matrix.values, first_panel * stride, stride, panels, depth,
            y, y_offset, y_stride,
        )  # fmt: skip
        return
    if rows > 1:
        floats_at = scratch.panel.size // parts * part
        for panel in range(panels):
            dequantize_panel(matrix, first_panel + panel, depth, scratch.panel, floats_at)
            multiply_panel(
                x, x_offset, x_stride, rows, scratch.panel, floats_at, depth,
                y, y_offset + panel * PANEL, y_stride,
            )  # fmt: skip
        return
    blocks = depth // BLOCK
    panel = 0
    while panel + _WIDE <= panels:
        at = first_panel + panel
        _quantized_tile_1_wide(
            x, x_offset, matrix.quants, at * stride, matrix.scales, at * blocks * PANEL, blocks,
            y, y_offset + panel * PANEL,
        )  # fmt: skip
        panel += _WIDE
    while panel < panels:
        at = first_panel + panel
        _quantized_tile_1(
            x, x_offset, matrix.quants, at * stride, matrix.scales, at * blocks * PANEL, blocks,
            y, y_offset + panel * PANEL,
        )  # fmt: skip
        panel += 1


@helper
def weight_of(matrix: Matrix, depth: int, output: int, index: int) -> np.float32:
    """One weight of the first layer."""
    panel = output // PANEL
    lane = output - panel * PANEL
    at = panel * depth + index
    if matrix.quants.size == 0:
        return np.float32(matrix.values[at * PANEL + lane])
    scale = np.float32(matrix.scales[at // BLOCK * PANEL + lane])
    return np.float32(scale * np.float32(matrix.quants[at * PANEL + lane]))


@helper
def add_product(
    x: np.ndarray,
    depth: int,
    matrix: Matrix,
    layer: int,
    scratch: Scratch,
    rows: int,
    width: int,
    part: int,
    parts: int,
) -> None:
    """hidden += x times one layer of a matrix, in this part's columns."""
    panels = width // PANEL
    first = panels * part // parts
    last = panels * (part + 1) // parts
    multiply_matrix(
        x, 0, depth, rows, matrix, layer * panels + first, last - first, depth,
        scratch, part, parts, scratch.projected, first * PANEL, width,
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
