/* Arithmetic modulo p = 2^255 - 19 on four elements at once, exact in double precision with fused
 * multiply-add. A double here is always an integer; nothing is ever rounded away.
 *
 * Five limbs with 51 bits between them, signed: value = sum of limb[i] * 2^(51 i). With
 * e = 2^13 for what carries leave behind:
 *   reduced  every limb at most 2^50 + e in size. Results of multiply, square, load and carry.
 *   twice    at most 2^51 + 2e: the sum or difference of two reduced elements.
 * One operand of multiply may be twice, the other is reduced; square wants a reduced one.
 * docs/ed25519.md derives why every step is exact. Callers set the rounding mode (quad_enter). */
#ifndef ASSAY_FIELD25519_AVX2_H
#define ASSAY_FIELD25519_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#include "field25519.h"

#define QUAD_TARGET __attribute__((target("avx2,fma")))
#if !defined(QUAD_INLINE) /* a build for sanitizers asks for small functions instead */
#define QUAD_INLINE QUAD_TARGET __attribute__((always_inline, unused)) static inline
#endif

/* Lane j of limb[i] is limb i of element j. */
typedef struct {
    __m256d limb[5];
} quad;

/* Five or ten sums of halves of products, 64-bit integers modulo 2^64. */
typedef struct {
    __m256i sum[10];
} quad_columns;

/* Doubles from 2^103 to 2^104 are 2^51 apart, from 2^52 to 2^53 they are 1 apart: in either range, one
 * step of the value is one step of the bits read as an integer. */
#define QUAD_HIGH 15211807202738752817960438464512.0 /* 1.5 * 2^103 */
#define QUAD_LOW 6755399441055744.0                  /* 1.5 * 2^52 */
#define QUAD_HIGH_BITS 0x4668000000000000ull
#define QUAD_LOW_BITS 0x4338000000000000ull
/* Added to a column before it is cut: 2^62 makes it positive, 2^50 makes the cut round to nearest. */
#define QUAD_BIAS ((1ull << 62) + (1ull << 50))

/* To nearest, no exceptions, whatever the thread was set to; returns what quad_leave puts back. */
QUAD_INLINE unsigned quad_enter(void) {
    unsigned before = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return before;
}

QUAD_INLINE void quad_leave(unsigned before) {
    _mm_setcsr(before);
}

QUAD_INLINE __m256i quad_constant(uint64_t word) {
    return _mm256_set1_epi64x((long long)word);
}

/* a * b = low + 2^51 * high exactly, with low at most 2^50 in size; adds both, as bits. */
QUAD_INLINE void quad_add_product(__m256i *low, __m256i *high, __m256d a, __m256d b) {
    const __m256d high_offset = _mm256_set1_pd(QUAD_HIGH);
    const __m256d both_offsets = _mm256_set1_pd(QUAD_HIGH + QUAD_LOW);
    __m256d upper = _mm256_fmadd_pd(a, b, high_offset);
    __m256d lower = _mm256_fmadd_pd(a, b, _mm256_sub_pd(both_offsets, upper));
    *low = _mm256_add_epi64(*low, _mm256_castpd_si256(lower));
    *high = _mm256_add_epi64(*high, _mm256_castpd_si256(upper));
}

/* What takes the offsets of `lows` and `highs` products out of a column. */
QUAD_INLINE uint64_t quad_offsets(unsigned lows, unsigned highs) {
    return 0 - lows * QUAD_LOW_BITS - highs * QUAD_HIGH_BITS;
}

QUAD_INLINE __m256i quad_times_19(__m256i a) {
    __m256i twice = _mm256_slli_epi64(a, 1), sixteenfold = _mm256_slli_epi64(a, 4);
    return _mm256_add_epi64(_mm256_add_epi64(a, twice), sixteenfold);
}

/* Columns 5 to 9 stand for 2^255 = 19 times columns 0 to 4. */
QUAD_INLINE void quad_fold(quad_columns *columns) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        columns->sum[i] = _mm256_add_epi64(columns->sum[i], quad_times_19(columns->sum[i + 5]));
}

/* Columns 0 to 4, each below 2^59 in size and with QUAD_BIAS added, to a reduced element. */
QUAD_INLINE void quad_carry(quad *out, const quad_columns *columns) {
    const __m256i mask = quad_constant(FIELD_MASK);
    const uint64_t unbiased = QUAD_LOW_BITS - (1ull << 50); /* a carry has 2^62 / 2^51 too much */
    const __m256i first = quad_constant(unbiased - 19 * (1ull << 11));
    const __m256i others = quad_constant(unbiased - (1ull << 11));
    __m256i carry[5], rest[5];
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        carry[i] = _mm256_srli_epi64(columns->sum[i], 51);
        rest[i] = _mm256_and_si256(columns->sum[i], mask);
    }
    __m256i around = _mm256_mul_epu32(carry[4], quad_constant(19));
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        __m256i limb = _mm256_add_epi64(rest[i], i == 0 ? around : carry[i - 1]);
        limb = _mm256_add_epi64(limb, i == 0 ? first : others);
        out->limb[i] = _mm256_sub_pd(_mm256_castsi256_pd(limb), _mm256_set1_pd(QUAD_LOW));
    }
}

/* The products' columns 0 to 4 after folding; `bias` is added to each. */
QUAD_INLINE void quad_multiply_columns(quad_columns *columns, const quad *a, const quad *b,
                                       __m256i bias) {
#pragma GCC unroll 10
    for (unsigned k = 0; k < 10; k++) {
        unsigned lows = k < 5 ? k + 1 : 9 - k, highs = k < 6 ? k : 10 - k;
        __m256i start = quad_constant(quad_offsets(lows, highs));
        columns->sum[k] = k < 5 ? _mm256_add_epi64(start, bias) : start;
    }
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
#pragma GCC unroll 5
        for (int j = 0; j < 5; j++)
            quad_add_product(&columns->sum[i + j], &columns->sum[i + j + 1], a->limb[i],
                             b->limb[j]);
    }
    quad_fold(columns);
}

QUAD_INLINE void quad_multiply(quad *out, const quad *a, const quad *b) {
    quad_columns columns;
    quad_multiply_columns(&columns, a, b, quad_constant(QUAD_BIAS));
    quad_carry(out, &columns);
}

QUAD_INLINE void quad_square(quad *out, const quad *a) {
    quad_columns columns;
    __m256d twice[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) twice[i] = _mm256_add_pd(a->limb[i], a->limb[i]);
#pragma GCC unroll 10
    for (unsigned k = 0; k < 10; k++) {
        unsigned lows = (k < 5 ? k + 2 : 10 - k) / 2, highs = (k < 6 ? k + 1 : 11 - k) / 2;
        uint64_t bias = k < 5 ? QUAD_BIAS : 0;
        columns.sum[k] = quad_constant(quad_offsets(lows, highs) + bias);
    }
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        quad_add_product(&columns.sum[2 * i], &columns.sum[2 * i + 1], a->limb[i], a->limb[i]);
#pragma GCC unroll 4
        for (int j = i + 1; j < 5; j++)
            quad_add_product(&columns.sum[i + j], &columns.sum[i + j + 1], twice[i], a->limb[j]);
    }
    quad_fold(&columns);
    quad_carry(out, &columns);
}

QUAD_INLINE void quad_add(quad *out, const quad *a, const quad *b) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) out->limb[i] = _mm256_add_pd(a->limb[i], b->limb[i]);
}

QUAD_INLINE void quad_subtract(quad *out, const quad *a, const quad *b) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) out->limb[i] = _mm256_sub_pd(a->limb[i], b->limb[i]);
}

/* The integer limbs of any element whose limbs are below 2^51 + 2e in size, brought to reduced. */
QUAD_INLINE void quad_reduce(quad *out, const quad *a) {
    quad_columns columns;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        __m256i limb = _mm256_castpd_si256(_mm256_add_pd(a->limb[i], _mm256_set1_pd(QUAD_LOW)));
        columns.sum[i] = _mm256_add_epi64(limb, quad_constant(QUAD_BIAS - QUAD_LOW_BITS));
    }
    quad_carry(out, &columns);
}

/* Four elements with limbs below 2^58, to reduced. */
QUAD_INLINE void quad_from_fields(quad *out, const field elements[4]) {
    quad_columns columns;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        __m256i limb = _mm256_set_epi64x(
            (long long)elements[3].limb[i], (long long)elements[2].limb[i],
            (long long)elements[1].limb[i], (long long)elements[0].limb[i]);
        columns.sum[i] = _mm256_add_epi64(limb, quad_constant(QUAD_BIAS));
    }
    quad_carry(out, &columns);
}

/* Limbs of a + 2p: positive and below 2^53, so loose, for a reduced or twice as large. */
QUAD_INLINE void quad_to_fields(field elements[4], const quad *a) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        const uint64_t twice_p = i == 0 ? 0xfffffffffffdaull : 0xffffffffffffeull;
        uint64_t lanes[4];
        __m256i limb = _mm256_castpd_si256(_mm256_add_pd(a->limb[i], _mm256_set1_pd(QUAD_LOW)));
        limb = _mm256_add_epi64(limb, quad_constant(twice_p - QUAD_LOW_BITS));
        _mm256_storeu_si256((__m256i *)lanes, limb);
        for (int lane = 0; lane < 4; lane++) elements[lane].limb[i] = lanes[lane];
    }
}

#endif
