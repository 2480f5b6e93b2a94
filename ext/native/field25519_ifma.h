/* Arithmetic modulo p = 2^255 - 19 on eight elements at once with AVX-512's multiply-add of 52-bit
 * integers (IFMA): of two operands' low 52 bits, either half of the 104-bit product is added to 64 bits.
 *
 * Five limbs with 51 bits between them, unsigned: value = sum of limb[i] * 2^(51 i).
 *   reduced  every limb below 2^51 + 2^16: the result of everything here.
 *   fitting  every limb below 2^52: what an operand of a product must be, as higher bits are not read.
 * The second operand of multiply may be fitting; all other operands are reduced. docs/ed25519.md derives
 * the bounds; with ASSAY_CHECK_LIMBS they are checked wherever something relies on them.
 *
 * tests/ext/ifma_emulated.h gives the instructions' meaning in portable C, for processors without. */
#ifndef ASSAY_FIELD25519_IFMA_H
#define ASSAY_FIELD25519_IFMA_H

#include <stdint.h>

#include "field25519.h"

#if defined(ASSAY_IFMA_EMULATED)
#include "ifma_emulated.h"
#define LANES_TARGET
#else
#include <immintrin.h>
#define LANES_TARGET __attribute__((target("avx512f,avx512ifma")))
#endif
#if defined(ASSAY_SMALL_FUNCTIONS) /* inlined ones take a build for sanitizers minutes */
#define LANES_INLINE LANES_TARGET __attribute__((noinline, unused)) static
#else
#define LANES_INLINE LANES_TARGET __attribute__((always_inline, unused)) static inline
#endif

enum { LANES = 8, GROUPS = 2 };
typedef uint64_t lane_row[4]; /* one limb of four elements */
#define LANE_ROWS words       /* what edwards_ready and edwards_bucket call them */

/* Lane j of limb[i] is limb i of element j. */
typedef struct {
    __m512i limb[5];
} lanes;

/* Five or ten sums of halves of products. */
typedef struct {
    __m512i sum[10];
} lanes_columns;

#define LANES_REDUCED ((1ull << 51) + (1ull << 16))
#define LANES_FITTING (1ull << 52)
/* What lanes_carry takes. */
#define LANES_COLUMN (1ull << 62)

#if defined(ASSAY_CHECK_LIMBS)
#include <stdio.h>
#include <stdlib.h>
/* Ends the process unless every word of `count` vectors is below `bound`. */
LANES_INLINE void lanes_check(const __m512i *vectors, int count, uint64_t bound, const char *where) {
    for (int i = 0; i < count; i++) {
        uint64_t words[LANES];
        _mm512_storeu_si512(words, vectors[i]);
        for (int lane = 0; lane < LANES; lane++) {
            if (words[lane] < bound) continue;
            fprintf(stderr, "%s: limb %d of lane %d is %llu over its bound\n", where, i, lane,
                    (unsigned long long)(words[lane] - bound));
            abort();
        }
    }
}
#define LANES_CHECK(vectors, bound) lanes_check(vectors, 5, bound, __func__)
#else
#define LANES_CHECK(vectors, bound) ((void)0)
#endif

LANES_INLINE __m512i lanes_word(uint64_t word) {
    return _mm512_set1_epi64((long long)word);
}

/* Nothing of the thread matters here. */
LANES_INLINE unsigned lanes_enter(void) {
    return 0;
}

LANES_INLINE void lanes_leave(unsigned before) {
    (void)before;
}

/* Columns 5 to 9 stand for 2^255 = 19 times columns 0 to 4. One shift: they all go one way. */
LANES_INLINE void lanes_fold(lanes_columns *columns) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        const __m512i high = columns->sum[i + 5];
        const __m512i thrice = _mm512_add_epi64(_mm512_add_epi64(high, high), high);
        const __m512i nineteenfold = _mm512_add_epi64(_mm512_slli_epi64(high, 4), thrice);
        columns->sum[i] = _mm512_add_epi64(columns->sum[i], nineteenfold);
    }
}

/* Columns 0 to 4, each below 2^62, to a reduced element. All five are cut at once: a carry is below 2^11,
 * and 19 times that below 2^16. */
LANES_INLINE void lanes_carry(lanes *out, const lanes_columns *columns) {
    const __m512i mask = lanes_word(FIELD_MASK);
    __m512i carry[5], rest[5];
    LANES_CHECK(columns->sum, LANES_COLUMN);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        carry[i] = _mm512_srli_epi64(columns->sum[i], 51);
        rest[i] = _mm512_and_si512(columns->sum[i], mask);
    }
    out->limb[0] = _mm512_madd52lo_epu64(rest[0], carry[4], lanes_word(19));
#pragma GCC unroll 4
    for (int i = 1; i < 5; i++) out->limb[i] = _mm512_add_epi64(rest[i], carry[i - 1]);
    LANES_CHECK(out->limb, LANES_REDUCED);
}

/* 2^9 p: above every column of a product, so that one can be taken off another. */
#define LANES_BIAS_FIRST ((1ull << 60) - (19ull << 9))
#define LANES_BIAS ((1ull << 60) - (1ull << 9))

/* The product's columns 0 to 4, in the lanes of `biased` with 2^9 p added. The lower half of limb i times
 * limb j is of weight 2^(51 (i + j)), the upper half of 2^(51 (i + j) + 52): it counts twice in the next
 * column. So upper halves are added up first, then doubled, then lower halves added on top. */
LANES_INLINE void lanes_multiply_columns(lanes_columns *columns, const lanes *a, const lanes *b,
                                         __mmask8 biased) {
    LANES_CHECK(a->limb, LANES_REDUCED);
    LANES_CHECK(b->limb, LANES_FITTING);
    columns->sum[0] = _mm512_maskz_set1_epi64(biased, (long long)LANES_BIAS_FIRST);
#pragma GCC unroll 9
    for (int k = 1; k < 10; k++)
        columns->sum[k] = k < 5 ? _mm512_maskz_set1_epi64(biased, (long long)(LANES_BIAS / 2))
                                : _mm512_setzero_si512();
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
#pragma GCC unroll 5
        for (int j = 0; j < 5; j++)
            columns->sum[i + j + 1] =
                _mm512_madd52hi_epu64(columns->sum[i + j + 1], a->limb[i], b->limb[j]);
    }
#pragma GCC unroll 9
    for (int k = 1; k < 10; k++)
        columns->sum[k] = _mm512_add_epi64(columns->sum[k], columns->sum[k]);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
#pragma GCC unroll 5
        for (int j = 0; j < 5; j++)
            columns->sum[i + j] =
                _mm512_madd52lo_epu64(columns->sum[i + j], a->limb[i], b->limb[j]);
    }
    lanes_fold(columns);
}

LANES_INLINE void lanes_multiply(lanes *out, const lanes *a, const lanes *b) {
    lanes_columns columns;
    lanes_multiply_columns(&columns, a, b, 0);
    lanes_carry(out, &columns);
}

/* Twice a limb would not fit. So the products of different limbs, which count twice, are added up before
 * a doubling: their upper halves before two, their lower ones and the squares' upper ones before one. */
LANES_INLINE void lanes_square(lanes *out, const lanes *a) {
    lanes_columns columns;
    LANES_CHECK(a->limb, LANES_REDUCED);
#pragma GCC unroll 10
    for (int k = 0; k < 10; k++) columns.sum[k] = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
#pragma GCC unroll 4
        for (int j = i + 1; j < 5; j++)
            columns.sum[i + j + 1] =
                _mm512_madd52hi_epu64(columns.sum[i + j + 1], a->limb[i], a->limb[j]);
    }
#pragma GCC unroll 7
    for (int k = 2; k < 9; k++) columns.sum[k] = _mm512_add_epi64(columns.sum[k], columns.sum[k]);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        columns.sum[2 * i + 1] =
            _mm512_madd52hi_epu64(columns.sum[2 * i + 1], a->limb[i], a->limb[i]);
#pragma GCC unroll 4
        for (int j = i + 1; j < 5; j++)
            columns.sum[i + j] =
                _mm512_madd52lo_epu64(columns.sum[i + j], a->limb[i], a->limb[j]);
    }
#pragma GCC unroll 9
    for (int k = 1; k < 10; k++) columns.sum[k] = _mm512_add_epi64(columns.sum[k], columns.sum[k]);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        columns.sum[2 * i] = _mm512_madd52lo_epu64(columns.sum[2 * i], a->limb[i], a->limb[i]);
    lanes_fold(&columns);
    lanes_carry(out, &columns);
}

/* Limb i of 2p. */
LANES_INLINE __m512i lanes_twice_p(int i) {
    return lanes_word(i == 0 ? 0xfffffffffffdaull : 0xffffffffffffeull);
}

LANES_INLINE void lanes_add(lanes *out, const lanes *a, const lanes *b) {
    lanes_columns columns;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) columns.sum[i] = _mm512_add_epi64(a->limb[i], b->limb[i]);
    lanes_carry(out, &columns);
}

LANES_INLINE void lanes_subtract(lanes *out, const lanes *a, const lanes *b) {
    lanes_columns columns;
    LANES_CHECK(b->limb, LANES_REDUCED);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        columns.sum[i] =
            _mm512_sub_epi64(_mm512_add_epi64(a->limb[i], lanes_twice_p(i)), b->limb[i]);
    lanes_carry(out, &columns);
}

/* Lane i of `a` where bit i is set, of `b` elsewhere. */
LANES_INLINE void lanes_choose(lanes *out, unsigned bits, const lanes *a, const lanes *b) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        out->limb[i] = _mm512_mask_blend_epi64((__mmask8)bits, b->limb[i], a->limb[i]);
}

/* The opposites of the lanes whose bits are set. */
LANES_INLINE void lanes_negate(lanes *a, unsigned bits) {
    lanes_columns columns;
    LANES_CHECK(a->limb, LANES_REDUCED);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        columns.sum[i] =
            _mm512_mask_sub_epi64(a->limb[i], (__mmask8)bits, lanes_twice_p(i), a->limb[i]);
    lanes_carry(a, &columns);
}

/* Eight elements with limbs below 2^58, to reduced. */
LANES_INLINE void lanes_from_fields(lanes *out, const field elements[LANES]) {
    lanes_columns columns;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        uint64_t words[LANES];
        for (int lane = 0; lane < LANES; lane++) words[lane] = elements[lane].limb[i];
        columns.sum[i] = _mm512_loadu_si512(words);
    }
    lanes_carry(out, &columns);
}

/* The limbs as they are. */
LANES_INLINE void lanes_to_fields(field elements[LANES], const lanes *a) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        uint64_t words[LANES];
        _mm512_storeu_si512(words, a->limb[i]);
        for (int lane = 0; lane < LANES; lane++) elements[lane].limb[i] = words[lane];
    }
}

#endif
