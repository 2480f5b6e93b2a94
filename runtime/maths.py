"""exp, log, sin and cos out of IEEE additions and multiplications only.

The C library's functions differ between versions and CPUs in their last bit; these do not differ
anywhere, because each operation is rounded once, as IEEE 754 says, in the order written here.
Accuracy: about one unit in the last place in double, two in float32, over the ranges named.
"""

import math

import numpy as np

from runtime.intrinsics import (
    double_as_integer,
    integer_as_double,
    integer_as_float,
)
from runtime.kernels import helper, kernel

# ln 2 and pi/2 in parts: the leading parts have few enough bits that a small integer times them is
# exact.
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_LOG2_E = 1.4426950408889634
_HALF_PI_HIGH = 1.57079632673412561417e00
_HALF_PI_MIDDLE = 6.07710050630396597660e-11
_HALF_PI_LOW = 2.02226624879595063154e-21
_TWO_OVER_PI = 0.6366197723675814
_SQRT_HALF = 0.7071067811865476

# Adding and subtracting 1.5 * 2^52 (2^23) rounds a double (float) to the nearest integer.
_ROUND = 6755399441055744.0
_ROUND_BITS = int(np.float64(_ROUND).view(np.int64))
_ROUND_F = np.float32(12582912.0)

_EXP_LOWEST = -708.0
"""exp64 is 0 below: the smallest normal double is near."""
_EXP_LOWEST_F = np.float32(-87.0)
_EXP_HIGHEST_F = np.float32(88.0)
_LOG2_E_F = np.float32(_LOG2_E)
_LN2_HIGH_F = np.float32(0.693359375)
_LN2_LOW_F = np.float32(-2.12194440e-4)
_ONE_F = np.float32(1.0)
_ZERO_F = np.float32(0.0)

_E2, _E3, _E4, _E5, _E6, _E7 = (np.float32(1.0 / math.factorial(power)) for power in range(2, 8))


@helper
def exp32(x: np.float32) -> np.float32:
    """e^x for float32 x; exactly 0 below -87, clipped to e^88 above."""
    clipped = min(max(x, _EXP_LOWEST_F), _EXP_HIGHEST_F)
    count = (clipped * _LOG2_E_F + _ROUND_F) - _ROUND_F
    rest = (clipped - count * _LN2_HIGH_F) - count * _LN2_LOW_F
    series = _E6 + rest * _E7
    series = _E5 + rest * series
    series = _E4 + rest * series
    series = _E3 + rest * series
    series = _E2 + rest * series
    series = _ONE_F + rest * series
    series = _ONE_F + rest * series
    scale = integer_as_float((np.int32(count) + np.int32(127)) << np.int32(23))
    return series * scale if x >= _EXP_LOWEST_F else _ZERO_F


_TAYLOR = tuple(1.0 / math.factorial(power) for power in range(20))
_T2, _T3, _T4, _T5, _T6, _T7, _T8, _T9, _T10, _T11, _T12, _T13 = _TAYLOR[2:14]


@helper
def exp64(x: float) -> float:
    """e^x for double x up to 700; exactly 0 below -708."""
    clipped = max(x, _EXP_LOWEST)
    shifted = clipped * _LOG2_E + _ROUND
    count = shifted - _ROUND
    rest = (clipped - count * _LN2_HIGH) - count * _LN2_LOW
    # Written out: a loop over coefficients would keep LLVM from computing several values at once.
    series = _T12 + rest * _T13
    series = _T11 + rest * series
    series = _T10 + rest * series
    series = _T9 + rest * series
    series = _T8 + rest * series
    series = _T7 + rest * series
    series = _T6 + rest * series
    series = _T5 + rest * series
    series = _T4 + rest * series
    series = _T3 + rest * series
    series = _T2 + rest * series
    series = 1.0 + rest * series
    series = 1.0 + rest * series
    # The low bits of the shifted number are the integer: a conversion that every CPU has as a
    # vector.
    scale = integer_as_double((double_as_integer(shifted) - _ROUND_BITS + 1023) << 52)
    return series * scale if x >= _EXP_LOWEST else 0.0


@helper
def log64(x: float) -> float:
    """Natural logarithm of a positive, finite, normal double."""
    bits = double_as_integer(x)
    exponent: int = ((bits >> 52) & 0x7FF) - 1022
    mantissa = integer_as_double((bits & 0xFFFFFFFFFFFFF) | (1022 << 52))
    if mantissa < _SQRT_HALF:
        mantissa = mantissa + mantissa
        exponent -= 1
    distance: float = mantissa - 1.0
    # ln(1 + d) = 2 atanh(d / (2 + d)), an odd series in a number below 0.172.
    ratio = distance / (2.0 + distance)
    square = ratio * ratio
    series = 2.0 / 21.0
    for odd in range(19, 1, -2):
        series = 2.0 / odd + square * series
    tail = ratio * (square * series)
    return exponent * _LN2_HIGH + (2.0 * ratio + (tail + exponent * _LN2_LOW))


@helper
def sine_cosine64(x: float) -> tuple[float, float]:
    """(sin x, cos x) for |x| below 2^20 radians, the most positions a model may have."""
    count = (x * _TWO_OVER_PI + _ROUND) - _ROUND
    rest = ((x - count * _HALF_PI_HIGH) - count * _HALF_PI_MIDDLE) - count * _HALF_PI_LOW
    square = rest * rest
    sine = _TAYLOR[19]
    cosine = _TAYLOR[18]
    for step in range(8, -1, -1):
        sine = _TAYLOR[2 * step + 1] - square * sine
        cosine = _TAYLOR[2 * step] - square * cosine
    sine = rest * sine
    quadrant = np.int64(count) & 3
    if quadrant == 0:
        return sine, cosine
    if quadrant == 1:
        return cosine, -sine
    if quadrant == 2:
        return -sine, -cosine
    return -cosine, sine


@kernel("void(float32[::1], float32[::1])")
def exp32_each(values: np.ndarray, out: np.ndarray) -> None:
    """exp32 of each value; both float32[n]."""
    for index in range(values.size):
        out[index] = exp32(values[index])


@kernel("void(float64[::1], float64[::1])")
def exp64_each(values: np.ndarray, out: np.ndarray) -> None:
    """exp64 of each value; both float64[n]."""
    for index in range(values.size):
        out[index] = exp64(values[index])


@kernel("void(float64[::1], float64[::1])")
def log64_each(values: np.ndarray, out: np.ndarray) -> None:
    """log64 of each value; both float64[n]."""
    for index in range(values.size):
        out[index] = log64(values[index])


@kernel("void(float64[::1], float64[::1], float64[::1])")
def sine_cosine64_each(values: np.ndarray, sines: np.ndarray, cosines: np.ndarray) -> None:
    """sine_cosine64 of each value; all float64[n]."""
    for index in range(values.size):
        sines[index], cosines[index] = sine_cosine64(values[index])


@kernel("void(float64, float64[::1], float32[:, ::1], float32[:, ::1])")
def rotary_tables(
    base: float, divisors: np.ndarray, cosines: np.ndarray, sines: np.ndarray
) -> None:
    """Fill cosines and sines, float32[positions, head width / 2], of the rotary embedding.

    Frequencies, each divided by its pair's divisor, and angles are rounded to float32 as common
    implementations do, the functions then taken in double and rounded once.
    """
    positions, half = cosines.shape
    for pair in range(half):
        whole = exp64(-(2.0 * pair / (2 * half)) * log64(base))
        frequency = np.float32(whole / divisors[pair])
        for position in range(positions):
            angle = np.float32(position) * frequency
            sine, cosine = sine_cosine64(float(angle))
            cosines[position, pair] = np.float32(cosine)
            sines[position, pair] = np.float32(sine)
