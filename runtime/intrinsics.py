"""The few things numba cannot say itself: register tiles, bit casts and atomic counters, as LLVM
code.

A tile multiplies R rows of x with C panels of w, 16 columns each, keeping all R*C*16 sums in
registers: sum[r, c] starts at +0 and takes x[r, i] * w[c, i] for i = 0, 1, 2, ... in this order.
Multiplication and addition are rounded apart: the instructions carry no fast-math flag, so LLVM
may neither fuse them nor reorder a sum. Hence a sum's bits do not depend on the tile's shape, the
vector width of the CPU or on which thread computes it, and tiles may be chosen for speed alone.
"""

# ruff: noqa: PLR0913, PLR0917 - compiled functions take their operands one by one

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

PANEL = 16
"""Columns of a panel: one AVX-512 register, two AVX2 ones."""

_FLOAT = ir.FloatType()
_INDEX = ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, PANEL)
_ALIGNMENT_BYTES = 4


def _element(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [offset])


def _load_vector(builder: Any, pointer: Any) -> Any:
    vector = builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()))
    vector.align = _ALIGNMENT_BYTES
    return vector


def _load_integers(builder: Any, pointer: Any) -> Any:
    """16 int8 as float32; exact."""
    kind = ir.VectorType(ir.IntType(8), PANEL)
    vector = builder.load(builder.bitcast(pointer, kind.as_pointer()))
    vector.align = 1
    wide = builder.sext(vector, ir.VectorType(ir.IntType(32), PANEL))
    return builder.sitofp(wide, _VECTOR)


def _store_vector(builder: Any, vector: Any, pointer: Any) -> None:
    store = builder.store(vector, builder.bitcast(pointer, _VECTOR.as_pointer()))
    store.align = _ALIGNMENT_BYTES


def _prefetch(builder: Any, pointer: Any) -> None:
    """Ask for the cache line at an address; a hint only, harmless beyond the end of an array."""
    integer, address = ir.IntType(32), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [address, integer, integer, integer])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    for_reading, into_level_2, data = (ir.Constant(integer, number) for number in (0, 2, 1))
    builder.call(function, [builder.bitcast(pointer, address), for_reading, into_level_2, data])


def _broadcast(builder: Any, scalar: Any) -> Any:
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), PANEL), [0] * PANEL)
    single = builder.insert_element(
        ir.Constant(_VECTOR, ir.Undefined), scalar, lanes.type.element(0)
    )
    return builder.shuffle_vector(single, ir.Constant(_VECTOR, ir.Undefined), lanes)


def make_tile(rows: int, panels: int) -> Callable[..., None]:
    """A tile of `rows` x `panels`, callable from numba code as

    tile(x, x_offset, x_stride, w, w_offset, w_stride, depth, y, y_offset, y_stride)

    with flat float32 arrays; strides are in elements from row to row of x and y, and from panel to
    panel of w. Panel c of row r is written to y[y_offset + r * y_stride + c * 16 :][:16].
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, x_offset, x_stride, w, w_offset, w_stride, depth, y, y_offset, y_stride = arguments
        x_kind, w_kind, y_kind = (signature.args[index] for index in (0, 3, 7))

        def shifted(offset: Any, stride: Any, count: int) -> Any:
            return builder.add(offset, builder.mul(stride, ir.Constant(_INDEX, count)))

        x_rows = [
            _element(context, builder, x_kind, x, shifted(x_offset, x_stride, row))
            for row in range(rows)
        ]
        w_panels = [
            _element(context, builder, w_kind, w, shifted(w_offset, w_stride, panel))
            for panel in range(panels)
        ]
        zero = ir.Constant(_VECTOR, [0.0] * PANEL)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in w_panels] for _ in x_rows]
        for row_sums in sums:
            for place in row_sums:
                builder.store(zero, place)
        with cgutils.for_range(builder, depth) as loop:
            w_index = builder.mul(loop.index, ir.Constant(_INDEX, PANEL))
            columns = [_load_vector(builder, builder.gep(w_row, [w_index])) for w_row in w_panels]
            if rows > 1:
                # Several rows keep the processor busy with this panel while memory brings the next.
                ahead = builder.mul(builder.add(loop.index, depth), ir.Constant(_INDEX, PANEL))
                _prefetch(builder, builder.gep(w_panels[0], [ahead]))
            for x_row, row_sums in zip(x_rows, sums, strict=True):
                factor = _broadcast(builder, builder.load(builder.gep(x_row, [loop.index])))
                for column, place in zip(columns, row_sums, strict=True):
                    product = builder.fmul(factor, column)
                    builder.store(builder.fadd(builder.load(place), product), place)
        for row, row_sums in enumerate(sums):
            for panel, place in enumerate(row_sums):
                offset = builder.add(
                    shifted(y_offset, y_stride, row), ir.Constant(_INDEX, panel * PANEL)
                )
                pointer = _element(context, builder, y_kind, y, offset)
                _store_vector(builder, builder.load(place), pointer)
        return context.get_dummy_value()

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(
        typing_context: Any,
        x: Any,
        x_offset: Any,
        x_stride: Any,
        w: Any,
        w_offset: Any,
        w_stride: Any,
        depth: Any,
        y: Any,
        y_offset: Any,
        y_stride: Any,
    ) -> Any:
        arrays = types.Array(types.float32, 1, "C")
        index = types.int64
        signature = types.void(
            arrays, index, index, arrays, index, index, index, arrays, index, index
        )
        return signature, build

    return tile  # type: ignore[no-any-return]


def make_quantized_tile(panels: int, block: int) -> Callable[..., None]:
    """A tile of one row x `panels` over int8 weights, callable from numba code as

    tile(x, x_offset, w, w_offset, scales, scales_offset, blocks, y, y_offset)

    Panel c has its `blocks * block` x 16 weights at w[w_offset + c * blocks * block * 16 :] and its
    scales at scales[scales_offset + c * blocks * 16 :]. A weight is scale * integer, rounded to
    float32, and then what it is in `make_tile`: so the sums have the bits of the float tile's.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, x_offset, w, w_offset, scales, scales_offset, blocks, y, y_offset = arguments
        x_kind, w_kind, scales_kind, y_kind = (signature.args[index] for index in (0, 2, 4, 7))
        x_row = _element(context, builder, x_kind, x, x_offset)
        w_start = _element(context, builder, w_kind, w, w_offset)
        scales_start = _element(context, builder, scales_kind, scales, scales_offset)

        def times(value: Any, factor: int) -> Any:
            return builder.mul(value, ir.Constant(_INDEX, factor))

        zero = ir.Constant(_VECTOR, [0.0] * PANEL)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(panels)]
        for place in sums:
            builder.store(zero, place)
        with cgutils.for_range(builder, blocks) as outer:
            factors = []
            rows = []
            for panel in range(panels):
                at = builder.add(times(blocks, panel), outer.index)
                factors.append(_load_vector(builder, builder.gep(scales_start, [times(at, PANEL)])))
                rows.append(builder.gep(w_start, [times(at, block * PANEL)]))
            x_block = builder.gep(x_row, [times(outer.index, block)])
            with cgutils.for_range(builder, ir.Constant(_INDEX, block)) as inner:
                number = _broadcast(builder, builder.load(builder.gep(x_block, [inner.index])))
                for place, factor, row in zip(sums, factors, rows, strict=True):
                    integers = _load_integers(
                        builder, builder.gep(row, [times(inner.index, PANEL)])
                    )
                    weight = builder.fmul(factor, integers)
                    product = builder.fmul(number, weight)
                    builder.store(builder.fadd(builder.load(place), product), place)
        for panel, place in enumerate(sums):
            offset = builder.add(y_offset, ir.Constant(_INDEX, panel * PANEL))
            pointer = _element(context, builder, y_kind, y, offset)
            _store_vector(builder, builder.load(place), pointer)
        return context.get_dummy_value()

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(
        typing_context: Any,
        x: Any,
        x_offset: Any,
        w: Any,
        w_offset: Any,
        scales: Any,
        scales_offset: Any,
        blocks: Any,
        y: Any,
        y_offset: Any,
    ) -> Any:
        floats = types.Array(types.float32, 1, "C")
        integers = types.Array(types.int8, 1, "C")
        index = types.int64
        signature = types.void(floats, index, integers, index, floats, index, index, floats, index)
        return signature, build

    return tile  # type: ignore[no-any-return]


def _bit_cast(source: Any, target: Any) -> Callable[[Any], Any]:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    @intrinsic  # type: ignore[untyped-decorator]
    def cast(typing_context: Any, value: Any) -> Any:
        return target(source), build

    return cast  # type: ignore[no-any-return]


float_as_integer = _bit_cast(types.float32, types.int32)
integer_as_float = _bit_cast(types.int32, types.float32)
double_as_integer = _bit_cast(types.float64, types.int64)
integer_as_double = _bit_cast(types.int64, types.float64)


@intrinsic  # type: ignore[untyped-decorator]
def address_as_pointer(typing_context: Any, address: Any) -> Any:
    """An int64 address as a pointer to float32, for numba's `carray`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), build


@intrinsic  # type: ignore[untyped-decorator]
def atomic_add(typing_context: Any, array: Any, amount: Any) -> Any:
    """Add `amount` to array[0] of an int64 array in one indivisible step; returns the value
    before."""
    signature = types.int64(types.Array(types.int64, 1, "C"), types.int64)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", pointer, arguments[1], "seq_cst")

    return signature, build


@intrinsic  # type: ignore[untyped-decorator]
def yield_processor(typing_context: Any) -> Any:
    """Let another thread of the system run: POSIX sched_yield."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        function = cgutils.get_or_insert_function(builder.module, kind, "sched_yield")
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), build
