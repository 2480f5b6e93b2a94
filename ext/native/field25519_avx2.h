/* Arithmetic modulo p = 2^255 - 19 on four elements at once, exact in double precision with fused
 * multiply-add. A double here is always an integer; nothing is ever rounded away.
 *
 * Five limbs with 51 bits between them, signed: value = sum of limb[i] * 2^(51 i). With
 * e = 2^13 for what carries leave behind:
 *   reduced  every limb at most 2^50 + e in size: the result of everything here.
 *   twice    at most 2^51 + 2e: what adding two reduced elements limb by limb gives.
 * The first operand of multiply may be twice; all other operands are reduced.
 * docs/ed25519.md derives why every step is exact. Callers set the rounding mode (lanes_enter). */
#ifndef ASSAY_FIELD25519_AVX2_H
#define ASSAY_FIELD25519_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#include "field25519.h"

#define LANES_TARGET __attribute__((target("avx2,fma")))
#if defined(ASSAY_SMALL_FUNCTIONS) /* inlined ones take a build for sanitizers minutes */
#define LANES_INLINE LANES_TARGET __attribute__((noinline, unused)) static
#else
#define LANES_INLINE LANES_TARGET __attribute__((always_inline, unused)) static inline
#endif

enum { LANES = 4, GROUPS = 1 };
typedef double lane_row[4]; /* one limb of four elements */
#define LANE_ROWS doubles /* what edwards_ready and edwards_bucket call them */

/* Lane j of limb[i] is limb i of element j. */
typedef struct {
    __m256d limb[5];
} lanes;

/* Five or ten sums of halves of products, 64-bit integers modulo 2^64. */
typedef struct {
    __m256i sum[10];
} lanes_columns;

/* Doubles from 2^103 to 2^104 are 2^51 apart, from 2^52 to 2^53 they are 1 apart: in either range, one
 * step of the value is one step of the bits read as an integer. */
#define LANES_HIGH 15211807202738752817960438464512.0 /* 1.5 * 2^103 */
#define LANES_LOW 6755399441055744.0                  /* 1.5 * 2^52 */
#define LANES_HIGH_BITS 0x4668000000000000ull
#define LANES_LOW_BITS 0x4338000000000000ull
/* Added to a column before it is cut: 2^62 makes it positive, 2^50 makes the cut round to nearest. */
#define LANES_BIAS ((1ull << 62) + (1ull << 50))

LANES_INLINE __m256i lanes_word(uint64_t word) {
    return _mm256_set1_epi64x((long long)word);
}

/* To nearest, no exceptions, whatever the thread was set to; returns what lanes_leave puts back. */
LANES_INLINE unsigned lanes_enter(void) {
    unsigned before = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return before;
}

LANES_INLINE void lanes_leave(unsigned before) {
    _mm_setcsr(before);
}

/* Constants are read from memory: as immediates, the compiler makes each anew in every product. */
typedef struct {
    uint64_t multiply[10][4]; /* what the columns of a product start with: lanes_offsets */
    uint64_t difference[10][4];
    uint64_t square[10][4];
    uint64_t mask[4];
    uint64_t unbias_first[4], unbias[4];
    double high[4], low[4], both[4];
} lanes_constants;

extern const lanes_constants LANES_CONSTANTS;

#define LANES_WORDS(name) _mm256_load_si256((const __m256i *)LANES_CONSTANTS.name)
#define LANES_DOUBLES(name) _mm256_load_pd(LANES_CONSTANTS.name)

/* a * b = low + 2^51 * high exactly, with low at most 2^50 in size; adds both, as bits. */
LANES_INLINE void lanes_add_product(__m256i *low, __m256i *high, __m256d a, __m256d b) {
    __m256d upper = _mm256_fmadd_pd(a, b, LANES_DOUBLES(high));
    __m256d lower = _mm256_fmadd_pd(a, b, _mm256_sub_pd(LANES_DOUBLES(both), upper));
    *low = _mm256_add_epi64(*low, _mm256_castpd_si256(lower));
    *high = _mm256_add_epi64(*high, _mm256_castpd_si256(upper));
}

LANES_INLINE __m256i lanes_times_19(__m256i a) {
    __m256i twice = _mm256_slli_epi64(a, 1), sixteenfold = _mm256_slli_epi64(a, 4);
    return _mm256_add_epi64(_mm256_add_epi64(a, twice), sixteenfold);
}

/* Columns 5 to 9 stand for 2^255 = 19 times columns 0 to 4. */
LANES_INLINE void lanes_fold(lanes_columns *columns) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        columns->sum[i] = _mm256_add_epi64(columns->sum[i], lanes_times_19(columns->sum[i + 5]));
}

/* Columns 0 to 4, each below 2^59 in size and with LANES_BIAS added, to a reduced element. */
LANES_INLINE void lanes_carry(lanes *out, const lanes_columns *columns) {
    const __m256i mask = LANES_WORDS(mask);
    __m256i carry[5], rest[5];
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        carry[i] = _mm256_srli_epi64(columns->sum[i], 51);
        rest[i] = _mm256_and_si256(columns->sum[i], mask);
    }
    const __m256i around = lanes_times_19(carry[4]);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        __m256i limb = _mm256_add_epi64(rest[i], i == 0 ? around : carry[i - 1]);
        limb = _mm256_add_epi64(limb, i == 0 ? LANES_WORDS(unbias_first) : LANES_WORDS(unbias));
        out->limb[i] = _mm256_sub_pd(_mm256_castsi256_pd(limb), LANES_DOUBLES(low));
    }
}

/* The product's columns 0 to 4, each with its part of `start` added. */
LANES_INLINE void lanes_multiply_columns(lanes_columns *columns, const lanes *a, const lanes *b,
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
            lanes_add_product(&columns->sum[k], &columns->sum[k + 1], a->limb[i], b->limb[j]);
        }
    }
    lanes_fold(columns);
}

LANES_INLINE void lanes_multiply(lanes *out, const lanes *a, const lanes *b) {
    lanes_columns columns;
    lanes_multiply_columns(&columns, a, b, LANES_CONSTANTS.multiply);
    lanes_carry(out, &columns);
}

LANES_INLINE void lanes_square(lanes *out, const lanes *a) {
    lanes_columns columns;
    __m256d twice[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) twice[i] = _mm256_add_pd(a->limb[i], a->limb[i]);
#pragma GCC unroll 10
    for (int k = 0; k < 10; k++) columns.sum[k] = LANES_WORDS(square[k]);
#pragma GCC unroll 9
    for (int k = 8; k >= 0; k--) {
#pragma GCC unroll 5
        for (int i = 0; i < 5; i++) {
            const int j = k - i;
            if (j < i || j > 4) continue;
            lanes_add_product(&columns.sum[k], &columns.sum[k + 1],
                             i == j ? a->limb[i] : twice[i], a->limb[j]);
        }
    }
    lanes_fold(&columns);
    lanes_carry(out, &columns);
}

/* The limbs of a reduced element as bits, LANES_LOW_BITS too much: in size they are below 2^51, so the
 * sum stays between 2^52 and 2^53. */
LANES_INLINE __m256i lanes_limb_bits(const lanes *a, int i) {
    return _mm256_castpd_si256(_mm256_add_pd(a->limb[i], LANES_DOUBLES(low)));
}

/* Reduced operands, reduced result. The limbs are added as integers: as doubles, the sum may be too
 * large for lanes_limb_bits. */
LANES_INLINE void lanes_add(lanes *out, const lanes *a, const lanes *b) {
    lanes_columns columns;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        columns.sum[i] =
            _mm256_add_epi64(_mm256_add_epi64(lanes_limb_bits(a, i), lanes_limb_bits(b, i)),
                             lanes_word(LANES_BIAS - 2 * LANES_LOW_BITS));
    lanes_carry(out, &columns);
}

LANES_INLINE void lanes_subtract(lanes *out, const lanes *a, const lanes *b) {
    lanes_columns columns;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        columns.sum[i] =
            _mm256_add_epi64(_mm256_sub_epi64(lanes_limb_bits(a, i), lanes_limb_bits(b, i)),
                             lanes_word(LANES_BIAS));
    lanes_carry(out, &columns);
}

/* Four elements with limbs below 2^58, to reduced. */
LANES_INLINE void lanes_from_fields(lanes *out, const field elements[4]) {
    lanes_columns columns;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        __m256i limb = _mm256_set_epi64x(
            (long long)elements[3].limb[i], (long long)elements[2].limb[i],
            (long long)elements[1].limb[i], (long long)elements[0].limb[i]);
        columns.sum[i] = _mm256_add_epi64(limb, lanes_word(LANES_BIAS));
    }
    lanes_carry(out, &columns);
}

/* Limbs of a + 2p for a reduced a: positive and below 2^53, so loose. */
LANES_INLINE void lanes_to_fields(field elements[4], const lanes *a) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        const uint64_t twice_p = i == 0 ? 0xfffffffffffdaull : 0xffffffffffffeull;
        uint64_t lanes[4];
        __m256i limb = _mm256_add_epi64(lanes_limb_bits(a, i), lanes_word(twice_p - LANES_LOW_BITS));
        _mm256_storeu_si256((__m256i *)lanes, limb);
        for (int lane = 0; lane < 4; lane++) elements[lane].limb[i] = lanes[lane];
    }
}

#endif
