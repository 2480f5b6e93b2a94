/* Four lanes of doubles (field25519_avx2.h) for edwards_lanes.h. */
#include "edwards_engine.h"

#if defined(__x86_64__)

#include "field25519_avx2.h"

/* A column of a product takes in the offsets of `lows` lower and `highs` upper halves. */
#define ALL(word) {word, word, word, word}
#define OFFSETS(lows, highs) (0 - (lows) * LANES_LOW_BITS - (highs) * LANES_HIGH_BITS)
#define START(lows, highs) ALL(OFFSETS(lows, highs) + LANES_BIAS)
#define UPPER(lows, highs) ALL(OFFSETS(lows, highs))
/* For E = B - A, H = B + A, F = D - C, G = D + C (lanes_multiply_crosswise): only B and D carry the bias. */
#define MINUS(lows, highs)                                                                       \
    {OFFSETS(lows, highs), OFFSETS(lows, highs) + LANES_BIAS, OFFSETS(lows, highs),               \
     OFFSETS(lows, highs) + LANES_BIAS}

const lanes_constants LANES_CONSTANTS __attribute__((aligned(64))) = {
    .multiply = {START(1, 0), START(2, 1), START(3, 2), START(4, 3), START(5, 4), UPPER(4, 5),
                 UPPER(3, 4), UPPER(2, 3), UPPER(1, 2), UPPER(0, 1)},
    .difference = {MINUS(1, 0), MINUS(2, 1), MINUS(3, 2), MINUS(4, 3), MINUS(5, 4), UPPER(4, 5),
                   UPPER(3, 4), UPPER(2, 3), UPPER(1, 2), UPPER(0, 1)},
    .square = {START(1, 0), START(1, 1), START(2, 1), START(2, 2), START(3, 2), UPPER(2, 3),
               UPPER(2, 2), UPPER(1, 2), UPPER(1, 1), UPPER(0, 1)},
    .mask = ALL(FIELD_MASK),
    /* A carry has 2^62 / 2^51 too much, the rest 2^50, and a double's bits are wanted. */
    .unbias_first = ALL(LANES_LOW_BITS - (1ull << 50) - 19 * (1ull << 11)),
    .unbias = ALL(LANES_LOW_BITS - (1ull << 50) - (1ull << 11)),
    .high = ALL(LANES_HIGH),
    .low = ALL(LANES_LOW),
    .both = ALL(LANES_HIGH + LANES_LOW),
};

/* The lanes whose bits are set, as a mask for blending. */
LANES_INLINE __m256d lanes_mask(unsigned bits) {
    return _mm256_castsi256_pd(
        _mm256_set_epi64x(-(long long)(bits >> 3 & 1), -(long long)(bits >> 2 & 1),
                          -(long long)(bits >> 1 & 1), -(long long)(bits & 1)));
}

LANES_INLINE void lanes_choose(lanes *out, unsigned bits, const lanes *a, const lanes *b) {
    const __m256d mask = lanes_mask(bits);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) out->limb[i] = _mm256_blendv_pd(b->limb[i], a->limb[i], mask);
}

LANES_INLINE void lanes_negate(lanes *a, unsigned bits) {
    const __m256d flip = _mm256_and_pd(lanes_mask(bits), _mm256_set1_pd(-0.0));
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) a->limb[i] = _mm256_xor_pd(a->limb[i], flip);
}

LANES_INLINE void lanes_gather(lanes *out, lane_row *const places[GROUPS]) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) out->limb[i] = _mm256_loadu_pd(places[0][i]);
}

LANES_INLINE void lanes_scatter(lane_row *const places[GROUPS], const lanes *a) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) _mm256_storeu_pd(places[0][i], a->limb[i]);
}

/* The opposite has y - x and y + x in each other's place and -2dxy. */
LANES_INLINE void lanes_load_ready(lanes *out, const lane_row *const rows[GROUPS],
                                   unsigned negative) {
    /* In a permutation, bit 1 of a word says which of its half's two words comes there. */
    const __m256i keep = _mm256_setr_epi64x(0, 2, 0, 2), swap = _mm256_setr_epi64x(2, 0, 0, 2);
    const __m256d minus = _mm256_setr_pd(0.0, 0.0, -0.0, 0.0);
    const __m256i mask = _mm256_set1_epi64x(-(long long)negative);
    const __m256i order = _mm256_blendv_epi8(keep, swap, mask);
    const __m256d sign = _mm256_and_pd(minus, _mm256_castsi256_pd(mask));
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        out->limb[i] =
            _mm256_xor_pd(_mm256_permutevar_pd(_mm256_loadu_pd(rows[0][i]), order), sign);
}

LANES_INLINE void lanes_store_ready(edwards_ready out[LANES], const lanes *difference,
                                    const lanes *sum, const lanes *product) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        const __m256d fourth = _mm256_set1_pd(i == 0 ? 2.0 : 0.0);
        __m256d even = _mm256_unpacklo_pd(difference->limb[i], sum->limb[i]);
        __m256d odd = _mm256_unpackhi_pd(difference->limb[i], sum->limb[i]);
        __m256d even_rest = _mm256_unpacklo_pd(product->limb[i], fourth);
        __m256d odd_rest = _mm256_unpackhi_pd(product->limb[i], fourth);
        _mm256_storeu_pd(out[0].doubles[i], _mm256_permute2f128_pd(even, even_rest, 0x20));
        _mm256_storeu_pd(out[1].doubles[i], _mm256_permute2f128_pd(odd, odd_rest, 0x20));
        _mm256_storeu_pd(out[2].doubles[i], _mm256_permute2f128_pd(even, even_rest, 0x31));
        _mm256_storeu_pd(out[3].doubles[i], _mm256_permute2f128_pd(odd, odd_rest, 0x31));
    }
}

LANES_INLINE void lanes_multiply_crosswise(lanes *out, const lanes *a, const lanes *b) {
    lanes_columns columns;
    lanes_multiply_columns(&columns, a, b, LANES_CONSTANTS.difference);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        __m256i own = columns.sum[i], neighbour = _mm256_shuffle_epi32(own, 0x4e);
        columns.sum[i] = _mm256_blend_epi32(_mm256_add_epi64(neighbour, own),
                                            _mm256_sub_epi64(neighbour, own), 0x33);
    }
    lanes_carry(out, &columns);
}

LANES_INLINE void lanes_spread(lanes *left, lanes *right, const lanes *sums) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        __m128d low = _mm256_castpd256_pd128(sums->limb[i]);
        __m128d high = _mm256_extractf128_pd(sums->limb[i], 1);
        left->limb[i] = _mm256_insertf128_pd(_mm256_castpd128_pd256(low),
                                             _mm_unpacklo_pd(low, high), 1);
        right->limb[i] = _mm256_insertf128_pd(_mm256_castpd128_pd256(high),
                                              _mm_unpackhi_pd(low, high), 1);
    }
}

/* The first two lanes come out twice, the others reduced. */
LANES_INLINE void lanes_multiply_open(lanes *out, const lanes *a, const lanes *b) {
    const __m256d signs = _mm256_setr_pd(-1.0, 1.0, 0.0, 0.0);
    lanes product;
    lanes_multiply(&product, a, b);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        out->limb[i] = _mm256_fmadd_pd(product.limb[i], signs,
                                       _mm256_permute_pd(product.limb[i], 0x9));
}

#include "edwards_lanes.h"

static const edwards_engine AVX2_ENGINE = {
    .name = "avx2",
    .windows_at_once = GROUPS,
    .decode = decode,
    .from_affine = from_affine,
    .to_affine = to_affine,
    .sum_windows = sum_windows,
    .sum_few = sum_few,
};

const edwards_engine *edwards_avx2(void) {
    /* The compiler's run-time check asks the operating system's part (saved registers) too. */
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &AVX2_ENGINE : NULL;
}

#else

const edwards_engine *edwards_avx2(void) {
    return NULL;
}

#endif
