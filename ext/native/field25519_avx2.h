/* Arithmetic modulo p = 2^255 - 19 on four elements at once, exact in double precision with fused
 * multiply-add. A double here is always an integer; nothing is ever rounded away.
 *
 * Five limbs with 51 bits between them, signed: value = sum of limb[i] * 2^(51 i). With
 * e = 2^13 for what carries leave behind:
 *   reduced  every limb at most 2^50 + e in size: the result of everything here.
 *   twice    at most 2^51 + 2e: what adding two reduced elements limb by limb gives.
 * The first operand of multiply may be twice; all other operands are reduced.
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

QUAD_INLINE __m256i quad_word(uint64_t word) {
    return _mm256_set1_epi64x((long long)word);
}

/* To nearest, no exceptions, whatever the thread was set to; returns what quad_leave puts back. */
QUAD_INLINE unsigned quad_enter(void) {
    unsigned before = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return before;
}

QUAD_INLINE void quad_leave(unsigned before) {
    _mm_setcsr(before);
}

/* Constants are read from memory: as immediates, the compiler makes each anew in every product. */
typedef struct {
    uint64_t multiply[10][4]; /* what the columns of a product start with: quad_offsets */
    uint64_t difference[10][4];
    uint64_t square[10][4];
    uint64_t mask[4];
    uint64_t unbias_first[4], unbias[4];
    double high[4], low[4], both[4];
} quad_constants;

extern const quad_constants QUAD_CONSTANTS;

#define QUAD_WORDS(name) _mm256_load_si256((const __m256i *)QUAD_CONSTANTS.name)
#define QUAD_DOUBLES(name) _mm256_load_pd(QUAD_CONSTANTS.name)

/* a * b = low + 2^51 * high exactly, with low at most 2^50 in size; adds both, as bits. */
QUAD_INLINE void quad_add_product(__m256i *low, __m256i *high, __m256d a, __m256d b) {
    __m256d upper = _mm256_fmadd_pd(a, b, QUAD_DOUBLES(high));
    __m256d lower = _mm256_fmadd_pd(a, b, _mm256_sub_pd(QUAD_DOUBLES(both), upper));
    *low = _mm256_add_epi64(*low, _mm256_castpd_si256(lower));
    *high = _mm256_add_epi64(*high, _mm256_castpd_si256(upper));
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
    const __m256i mask = QUAD_WORDS(mask);
    __m256i carry[5], rest[5];
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        carry[i] = _mm256_srli_epi64(columns->sum[i], 51);
        rest[i] = _mm256_and_si256(columns->sum[i], mask);
    }
    const __m256i around = quad_times_19(carry[4]);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        __m256i limb = _mm256_add_epi64(rest[i], i == 0 ? around : carry[i - 1]);
        limb = _mm256_add_epi64(limb, i == 0 ? QUAD_WORDS(unbias_first) : QUAD_WORDS(unbias));
        out->limb[i] = _mm256_sub_pd(_mm256_castsi256_pd(limb), QUAD_DOUBLES(low));
    }
}

/* The product's columns 0 to 4, each with its part of `start` added. */
QUAD_INLINE void quad_multiply_columns(quad_columns *columns, const quad *a, const quad *b,
                                       const uint64_t start[10][4]) {
#pragma GCC unroll 10
    for (int k = 0; k < 10; k++)
        columns->sum[k] = _mm256_load_si256((const __m256i *)start[k]);
    /* From the highest column down: each is complete, and folded, while few others are open. */
#pragma GCC unroll 9
    for (int k = 8; k >= 0; k--) {
#pragma GCC unroll 5
        for (int i = 0; i < 5; i++) {
            const int j = k - i;
            if (j < 0 || j > 4) continue;
            quad_add_product(&columns->sum[k], &columns->sum[k + 1], a->limb[i], b->limb[j]);
        }
    }
    quad_fold(columns);
}

QUAD_INLINE void quad_multiply(quad *out, const quad *a, const quad *b) {
    quad_columns columns;
    quad_multiply_columns(&columns, a, b, QUAD_CONSTANTS.multiply);
    quad_carry(out, &columns);
}

QUAD_INLINE void quad_square(quad *out, const quad *a) {
    quad_columns columns;
    __m256d twice[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) twice[i] = _mm256_add_pd(a->limb[i], a->limb[i]);
#pragma GCC unroll 10
    for (int k = 0; k < 10; k++) columns.sum[k] = QUAD_WORDS(square[k]);
#pragma GCC unroll 9
    for (int k = 8; k >= 0; k--) {
#pragma GCC unroll 5
        for (int i = 0; i < 5; i++) {
            const int j = k - i;
            if (j < i || j > 4) continue;
            quad_add_product(&columns.sum[k], &columns.sum[k + 1],
                             i == j ? a->limb[i] : twice[i], a->limb[j]);
        }
    }
    quad_fold(&columns);
    quad_carry(out, &columns);
}

/* The limbs of a reduced element as bits, QUAD_LOW_BITS too much: in size they are below 2^51, so the
 * sum stays between 2^52 and 2^53. */
QUAD_INLINE __m256i quad_limb_bits(const quad *a, int i) {
    return _mm256_castpd_si256(_mm256_add_pd(a->limb[i], QUAD_DOUBLES(low)));
}

/* Reduced operands, reduced result. The limbs are added as integers: as doubles, the sum may be too
 * large for quad_limb_bits. */
QUAD_INLINE void quad_add(quad *out, const quad *a, const quad *b) {
    quad_columns columns;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        columns.sum[i] =
            _mm256_add_epi64(_mm256_add_epi64(quad_limb_bits(a, i), quad_limb_bits(b, i)),
                             quad_word(QUAD_BIAS - 2 * QUAD_LOW_BITS));
    quad_carry(out, &columns);
}

QUAD_INLINE void quad_subtract(quad *out, const quad *a, const quad *b) {
    quad_columns columns;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        columns.sum[i] =
            _mm256_add_epi64(_mm256_sub_epi64(quad_limb_bits(a, i), quad_limb_bits(b, i)),
                             quad_word(QUAD_BIAS));
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
        columns.sum[i] = _mm256_add_epi64(limb, quad_word(QUAD_BIAS));
    }
    quad_carry(out, &columns);
}

/* Limbs of a + 2p for a reduced a: positive and below 2^53, so loose. */
QUAD_INLINE void quad_to_fields(field elements[4], const quad *a) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        const uint64_t twice_p = i == 0 ? 0xfffffffffffdaull : 0xffffffffffffeull;
        uint64_t lanes[4];
        __m256i limb = _mm256_add_epi64(quad_limb_bits(a, i), quad_word(twice_p - QUAD_LOW_BITS));
        _mm256_storeu_si256((__m256i *)lanes, limb);
        for (int lane = 0; lane < 4; lane++) elements[lane].limb[i] = lanes[lane];
    }
}

#endif
