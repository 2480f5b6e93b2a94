/* Decoding and bucket sums with four field elements at once (field25519_avx2.h).
 *
 * Decoding puts four points side by side. Adding puts the four products of each half of one addition
 * side by side, as Hisil, Wong, Carter and Dawson 2008 (section 4.1) give it to four processors. */
#include "edwards_engine.h"

#if defined(__x86_64__)

#include "edwards_formulas.h"
#include "field25519_avx2.h"

/* A column of a product takes in the offsets of `lows` lower and `highs` upper halves. */
#define ALL(word) {word, word, word, word}
#define OFFSETS(lows, highs) (0 - (lows) * QUAD_LOW_BITS - (highs) * QUAD_HIGH_BITS)
#define START(lows, highs) ALL(OFFSETS(lows, highs) + QUAD_BIAS)
#define UPPER(lows, highs) ALL(OFFSETS(lows, highs))
/* For E = B - A, H = B + A, F = D - C, G = D + C (add_ready): only B and D carry the bias. */
#define MINUS(lows, highs)                                                                       \
    {OFFSETS(lows, highs), OFFSETS(lows, highs) + QUAD_BIAS, OFFSETS(lows, highs),               \
     OFFSETS(lows, highs) + QUAD_BIAS}

const quad_constants QUAD_CONSTANTS __attribute__((aligned(64))) = {
    .multiply = {START(1, 0), START(2, 1), START(3, 2), START(4, 3), START(5, 4), UPPER(4, 5),
                 UPPER(3, 4), UPPER(2, 3), UPPER(1, 2), UPPER(0, 1)},
    .difference = {MINUS(1, 0), MINUS(2, 1), MINUS(3, 2), MINUS(4, 3), MINUS(5, 4), UPPER(4, 5),
                   UPPER(3, 4), UPPER(2, 3), UPPER(1, 2), UPPER(0, 1)},
    .square = {START(1, 0), START(1, 1), START(2, 1), START(2, 2), START(3, 2), UPPER(2, 3),
               UPPER(2, 2), UPPER(1, 2), UPPER(1, 1), UPPER(0, 1)},
    .mask = ALL(FIELD_MASK),
    /* A carry has 2^62 / 2^51 too much, the rest 2^50, and a double's bits are wanted. */
    .unbias_first = ALL(QUAD_LOW_BITS - (1ull << 50) - 19 * (1ull << 11)),
    .unbias = ALL(QUAD_LOW_BITS - (1ull << 50) - (1ull << 11)),
    .high = ALL(QUAD_HIGH),
    .low = ALL(QUAD_LOW),
    .both = ALL(QUAD_HIGH + QUAD_LOW),
};

enum { LANES = 4, PREFETCH_AHEAD = 4, CACHE_LINE = 64 };

QUAD_INLINE void load(quad *out, const double lanes[5][4]) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) out->limb[i] = _mm256_loadu_pd(lanes[i]);
}

QUAD_INLINE void store(double lanes[5][4], const quad *a) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) _mm256_storeu_pd(lanes[i], a->limb[i]);
}

QUAD_INLINE void broadcast(quad *out, const field *a) {
    const field copies[LANES] = {*a, *a, *a, *a};
    quad_from_fields(out, copies);
}

/* out = a^(2^times) * b */
QUAD_TARGET static void square_times_multiply(quad *out, const quad *a, int times, const quad *b) {
    quad power = *a;
    for (; times > 0; times--) quad_square(&power, &power);
    quad_multiply(out, &power, b);
}

/* a^((p - 5) / 8) = a^(2^252 - 3); ones_n stands for a^(2^n - 1). */
QUAD_TARGET static void power_quad(quad *out, const quad *a) {
    quad ones_2, ones_5, ones_10, ones_20, ones_50, ones_100, power;
    square_times_multiply(&ones_2, a, 1, a);
    square_times_multiply(&power, &ones_2, 2, &ones_2);
    square_times_multiply(&ones_5, &power, 1, a);
    square_times_multiply(&ones_10, &ones_5, 5, &ones_5);
    square_times_multiply(&ones_20, &ones_10, 10, &ones_10);
    square_times_multiply(&power, &ones_20, 20, &ones_20);
    square_times_multiply(&ones_50, &power, 10, &ones_10);
    square_times_multiply(&ones_100, &ones_50, 50, &ones_50);
    square_times_multiply(&power, &ones_100, 100, &ones_100);
    square_times_multiply(&power, &power, 50, &ones_50);
    square_times_multiply(out, &power, 2, a);
}

/* Bit i says whether element i is zero modulo p. */
QUAD_TARGET static unsigned zero_lanes(const quad *a) {
    field elements[LANES];
    unsigned zero = 0;
    quad_to_fields(elements, a);
    for (int i = 0; i < LANES; i++) {
        field_carry(&elements[i]);
        zero |= (unsigned)field_is_zero(&elements[i]) << i;
    }
    return zero;
}

QUAD_TARGET static unsigned odd_lanes(const quad *a) {
    field elements[LANES];
    unsigned odd = 0;
    quad_to_fields(elements, a);
    for (int i = 0; i < LANES; i++) {
        field_carry(&elements[i]);
        odd |= (unsigned)field_parity(&elements[i]) << i;
    }
    return odd;
}

/* The lanes whose bits are set, as a mask for blending. */
QUAD_INLINE __m256d lanes_mask(unsigned bits) {
    return _mm256_castsi256_pd(
        _mm256_set_epi64x(-(long long)(bits >> 3 & 1), -(long long)(bits >> 2 & 1),
                          -(long long)(bits >> 1 & 1), -(long long)(bits & 1)));
}

/* Side by side by coordinate to side by side by point. */
QUAD_INLINE void store_ready(edwards_ready out[LANES], const quad *difference, const quad *sum,
                             const quad *product) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        const __m256d fourth = _mm256_set1_pd(i == 0 ? 2.0 : 0.0);
        __m256d even = _mm256_unpacklo_pd(difference->limb[i], sum->limb[i]);
        __m256d odd = _mm256_unpackhi_pd(difference->limb[i], sum->limb[i]);
        __m256d even_rest = _mm256_unpacklo_pd(product->limb[i], fourth);
        __m256d odd_rest = _mm256_unpackhi_pd(product->limb[i], fourth);
        _mm256_storeu_pd(out[0].lanes[i], _mm256_permute2f128_pd(even, even_rest, 0x20));
        _mm256_storeu_pd(out[1].lanes[i], _mm256_permute2f128_pd(odd, odd_rest, 0x20));
        _mm256_storeu_pd(out[2].lanes[i], _mm256_permute2f128_pd(even, even_rest, 0x31));
        _mm256_storeu_pd(out[3].lanes[i], _mm256_permute2f128_pd(odd, odd_rest, 0x31));
    }
}

/* As edwards_decode_pair, four at once; bit i of the result says that encoding i is a point. */
QUAD_TARGET static unsigned decode_four(edwards_ready out[LANES],
                                        const uint8_t *const encodings[LANES]) {
    quad y, y2, u, v, v2, uv3, x, other, check, product, one, constant;
    field loaded[LANES];
    unsigned signs = 0;
    for (int i = 0; i < LANES; i++) {
        field_load(&loaded[i], encodings[i]);
        signs |= (unsigned)(encodings[i][31] >> 7) << i;
    }
    quad_from_fields(&y, loaded);
    broadcast(&one, &FIELD_ONE);
    quad_square(&y2, &y);
    quad_subtract(&u, &y2, &one);
    broadcast(&constant, &EDWARDS_D);
    quad_multiply(&v, &y2, &constant);
    quad_add(&v, &v, &one);
    quad_square(&v2, &v);
    quad_multiply(&uv3, &u, &v);
    quad_multiply(&uv3, &uv3, &v2);
    quad_square(&v2, &v2);
    quad_multiply(&x, &uv3, &v2);
    power_quad(&x, &x);
    quad_multiply(&x, &x, &uv3);
    /* v x^2 is u, or -u and then x needs a root of -1, or u / v is no square. */
    quad_square(&check, &x);
    quad_multiply(&check, &check, &v);
    quad_subtract(&other, &check, &u);
    unsigned plain = zero_lanes(&other);
    quad_add(&other, &check, &u);
    unsigned turned = zero_lanes(&other);
    broadcast(&constant, &EDWARDS_ROOT_OF_MINUS_ONE);
    quad_multiply(&other, &x, &constant);
    const __m256d keep = lanes_mask(plain);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) x.limb[i] = _mm256_blendv_pd(other.limb[i], x.limb[i], keep);
    const __m256d flip =
        _mm256_and_pd(lanes_mask(odd_lanes(&x) ^ signs), _mm256_set1_pd(-0.0));
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) x.limb[i] = _mm256_xor_pd(x.limb[i], flip);
    broadcast(&constant, &EDWARDS_2D);
    quad_multiply(&product, &x, &y);
    quad_multiply(&product, &product, &constant);
    quad_subtract(&other, &y, &x);
    quad_add(&check, &y, &x);
    store_ready(out, &other, &check, &product);
    return plain | turned;
}

QUAD_TARGET static void decode(edwards_ready *out, uint8_t *decoded,
                               const uint8_t *const *encodings, size_t count) {
    unsigned before = quad_enter();
    for (size_t start = 0; start < count; start += LANES) {
        const size_t left = count - start < LANES ? count - start : LANES;
        const uint8_t *four[LANES];
        edwards_ready points[LANES];
        for (size_t i = 0; i < LANES; i++) four[i] = encodings[start + (i < left ? i : 0)];
        unsigned found = decode_four(points, four);
        for (size_t i = 0; i < left; i++) {
            out[start + i] = points[i];
            decoded[start + i] = found >> i & 1;
        }
    }
    quad_leave(before);
}

QUAD_TARGET static void from_affine(edwards_ready *out, const edwards_affine *point) {
    const field parts[LANES] = {point->difference, point->sum, point->product, {{2, 0, 0, 0, 0}}};
    unsigned before = quad_enter();
    quad lanes;
    quad_from_fields(&lanes, parts);
    store(out->lanes, &lanes);
    quad_leave(before);
}

QUAD_TARGET static void to_affine(edwards_affine *out, const edwards_ready *point) {
    field parts[LANES];
    unsigned before = quad_enter();
    quad lanes;
    load(&lanes, point->lanes);
    quad_to_fields(parts, &lanes);
    for (int i = 0; i < LANES; i++) field_carry(&parts[i]);
    *out = (edwards_affine){.difference = parts[0], .sum = parts[1], .product = parts[2]};
    quad_leave(before);
}

/* (X, Y, T, Z) to (Y - X, Y + X, T, Z): the first two are twice, the others reduced. */
QUAD_INLINE void prepare(quad *out, const quad *point) {
    const __m256d signs = _mm256_setr_pd(-1.0, 1.0, 0.0, 0.0);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        out->limb[i] = _mm256_fmadd_pd(point->limb[i], signs,
                                       _mm256_permute_pd(point->limb[i], 0x9));
}

/* point += added, a point in ready form: (y - x, y + x, 2dxy, 2) or (Y - X, Y + X, 2dT, 2Z). */
QUAD_INLINE void add_ready(quad *point, const quad *added) {
    quad left, right;
    quad_columns columns;
    prepare(&left, point);
    quad_multiply_columns(&columns, &left, added, QUAD_CONSTANTS.difference); /* A, B, C, D */
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) { /* E = B - A, H = B + A, F = D - C, G = D + C */
        __m256i own = columns.sum[i], neighbour = _mm256_shuffle_epi32(own, 0x4e);
        columns.sum[i] = _mm256_blend_epi32(_mm256_add_epi64(neighbour, own),
                                            _mm256_sub_epi64(neighbour, own), 0x33);
    }
    quad_carry(point, &columns);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) { /* X = E F, Y = H G, T = E H, Z = F G */
        __m128d low = _mm256_castpd256_pd128(point->limb[i]);
        __m128d high = _mm256_extractf128_pd(point->limb[i], 1);
        left.limb[i] = _mm256_insertf128_pd(_mm256_castpd128_pd256(low),
                                            _mm_unpacklo_pd(low, high), 1);
        right.limb[i] = _mm256_insertf128_pd(_mm256_castpd128_pd256(high),
                                             _mm_unpackhi_pd(low, high), 1);
    }
    quad_multiply(point, &left, &right);
}

QUAD_INLINE void make_ready(quad *out, const quad *point, const quad *factors) {
    quad prepared;
    prepare(&prepared, point);
    quad_multiply(out, &prepared, factors);
}

QUAD_INLINE void prefetch(const void *start) {
    for (size_t offset = 0; offset < sizeof(edwards_bucket); offset += CACHE_LINE)
        __builtin_prefetch((const char *)start + offset);
}

/* Adds every point to the bucket of its digit's size, or its opposite for a negative digit. */
QUAD_TARGET static void fill(edwards_bucket *buckets, const edwards_term *terms,
                             const int16_t *digits, size_t count) {
    /* The opposite has y - x and y + x in each other's place and -2dxy. In a permutation, bit 1 of a
     * word says which of its half's two words comes there. */
    const __m256i keep = _mm256_setr_epi64x(0, 2, 0, 2), swap = _mm256_setr_epi64x(2, 0, 0, 2);
    const __m256d minus = _mm256_setr_pd(0.0, 0.0, -0.0, 0.0);
    for (size_t i = 0; i < count; i++) {
        if (i + PREFETCH_AHEAD < count) {
            int ahead = digits[i + PREFETCH_AHEAD];
            if (ahead != 0) prefetch(&buckets[(ahead < 0 ? -ahead : ahead) - 1]);
            prefetch(terms[i + PREFETCH_AHEAD].point);
        }
        const int digit = digits[i];
        if (digit == 0) continue;
        const __m256i negative = _mm256_set1_epi64x(digit < 0 ? -1 : 0);
        const __m256i order = _mm256_blendv_epi8(keep, swap, negative);
        const __m256d sign = _mm256_and_pd(minus, _mm256_castsi256_pd(negative));
        edwards_bucket *bucket = &buckets[(digit < 0 ? -digit : digit) - 1];
        quad sum, added;
        load(&added, terms[i].point->lanes);
#pragma GCC unroll 5
        for (int j = 0; j < 5; j++)
            added.limb[j] = _mm256_xor_pd(_mm256_permutevar_pd(added.limb[j], order), sign);
        load(&sum, bucket->lanes);
        add_ready(&sum, &added);
        store(bucket->lanes, &sum);
    }
}

QUAD_TARGET static void sum_window(edwards_point *sum, edwards_bucket *buckets, size_t half,
                                   const edwards_term *terms, const int16_t *digits, size_t count) {
    const field identity_parts[LANES] = {FIELD_ZERO, FIELD_ONE, FIELD_ZERO, FIELD_ONE};
    const field factor_parts[LANES] = {FIELD_ONE, FIELD_ONE, EDWARDS_2D, {{2, 0, 0, 0, 0}}};
    unsigned before = quad_enter();
    quad running, total, factors, ready;
    field parts[LANES];
    quad_from_fields(&running, identity_parts);
    quad_from_fields(&factors, factor_parts);
    for (size_t i = 0; i < half; i++) store(buckets[i].lanes, &running);
    fill(buckets, terms, digits, count);
    /* The sum of (i + 1) * buckets[i] is the sum of the running sums from the last bucket down. */
    total = running;
    for (size_t i = half; i-- > 0;) {
        quad bucket;
        load(&bucket, buckets[i].lanes);
        make_ready(&ready, &bucket, &factors);
        add_ready(&running, &ready);
        make_ready(&ready, &running, &factors);
        add_ready(&total, &ready);
    }
    quad_to_fields(parts, &total);
    for (int i = 0; i < LANES; i++) field_carry(&parts[i]);
    *sum = (edwards_point){.x = parts[0], .y = parts[1], .t = parts[2], .z = parts[3]};
    quad_leave(before);
}

static const edwards_engine AVX2_ENGINE = {"avx2", decode, from_affine, to_affine, sum_window};

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
