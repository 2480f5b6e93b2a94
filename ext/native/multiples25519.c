/* Sums of many multiples by Pippenger's bucket method.
 *
 * Each scalar is cut into windows of `width` bits, recoded to signed digits in (-half, half]. For each
 * window, from the highest down, every point is added to the bucket of its digit's size; one sweep over
 * the buckets gives sum of size * bucket; and `width` doublings lead to the next window. */
#include <stdlib.h>

#include "edwards_engine.h"
#include "edwards_formulas.h"

enum { WIDTH_MIN = 3, WIDTH_MAX = 13 };
/* Costs in field multiplications, squarings counted as one. */
enum { COST_ADD_AFFINE = 7, COST_BUCKET = 18, COST_DOUBLE = 8 };

/* A scalar below 2^bits has this many digits: one bit more takes in the last carry. */
static unsigned windows_of(unsigned bits, unsigned width) {
    return (bits + width) / width;
}

static uint64_t cost_of(const edwards_term *terms, size_t count, unsigned width) {
    unsigned windows_max = 0;
    uint64_t additions = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned windows = windows_of(terms[i].bits, width);
        if (windows > windows_max) windows_max = windows;
        additions += windows;
    }
    uint64_t half = (uint64_t)1 << (width - 1);
    return additions * COST_ADD_AFFINE +
           windows_max * (half * COST_BUCKET + (uint64_t)width * COST_DOUBLE);
}

static unsigned best_width(const edwards_term *terms, size_t count) {
    unsigned best = WIDTH_MIN;
    uint64_t best_cost = cost_of(terms, count, WIDTH_MIN);
    for (unsigned width = WIDTH_MIN + 1; width <= WIDTH_MAX; width++) {
        uint64_t cost = cost_of(terms, count, width);
        if (cost >= best_cost) break; /* the cost has one minimum */
        best = width;
        best_cost = cost;
    }
    return best;
}

/* digits[window * stride] for each window of one term. */
static void recode(int16_t *digits, size_t stride, const edwards_term *term, unsigned width) {
    const uint64_t *words = term->multiplier.limb;
    const int32_t half = 1 << (width - 1), full = 1 << width;
    int32_t carry = 0;
    unsigned windows = windows_of(term->bits, width);
    for (unsigned window = 0; window < windows; window++) {
        unsigned position = window * width, word = position / 64, shift = position % 64;
        uint64_t bits = word < 4 ? words[word] >> shift : 0;
        if (shift + width > 64 && word < 3) bits |= words[word + 1] << (64 - shift);
        int32_t digit = (int32_t)(bits & (uint64_t)(full - 1)) + carry;
        carry = digit > half;
        if (carry) digit -= full;
        digits[window * stride] = (int16_t)digit;
    }
}

static void portable_decode(edwards_ready *out, uint8_t *decoded,
                            const uint8_t *const *encodings, size_t count) {
    for (size_t i = 0; i < count; i += 2) {
        const size_t other = i + 1 < count ? i + 1 : i;
        edwards_affine points[2];
        unsigned found = edwards_decode_pair(points, encodings[i], encodings[other]);
        decoded[other] = found >> 1 & 1;
        decoded[i] = found & 1;
        if (decoded[other]) out[other].affine = points[1];
        if (decoded[i]) out[i].affine = points[0];
    }
}

static void portable_from_affine(edwards_ready *out, const edwards_affine *point) {
    out->affine = *point;
}

static void portable_to_affine(edwards_affine *out, const edwards_ready *point) {
    *out = point->affine;
}

static void portable_sum_window(edwards_point *sum, edwards_bucket *buckets, size_t half,
                                const edwards_term *terms, const int16_t *digits, size_t count) {
    edwards_point running;
    edwards_cached cached;
    for (size_t i = 0; i < half; i++) edwards_identity(&buckets[i].point);
    for (size_t i = 0; i < count; i++) {
        const edwards_affine *point = &terms[i].point->affine;
        if (digits[i] > 0) {
            edwards_point *bucket = &buckets[digits[i] - 1].point;
            point_add_affine(bucket, bucket, point, 0);
        } else if (digits[i] < 0) {
            edwards_point *bucket = &buckets[-digits[i] - 1].point;
            point_add_affine(bucket, bucket, point, 1);
        }
    }
    /* The sum of (i + 1) * buckets[i] is the sum of the running sums from the last bucket down. */
    edwards_identity(&running);
    edwards_identity(sum);
    for (size_t i = half; i-- > 0;) {
        point_cache(&cached, &buckets[i].point);
        point_add(&running, &running, &cached, 0);
        point_cache(&cached, &running);
        point_add(sum, sum, &cached, 0);
    }
}

static const edwards_engine PORTABLE_ENGINE = {
    "portable", portable_decode, portable_from_affine, portable_to_affine, portable_sum_window,
};

const edwards_engine *edwards_portable(void) {
    return &PORTABLE_ENGINE;
}

int edwards_sum_multiples(const edwards_engine *engine, edwards_point *out,
                          const edwards_term *terms, size_t count) {
    edwards_identity(out);
    if (count == 0) return 1;
    const unsigned width = best_width(terms, count);
    const size_t half = (size_t)1 << (width - 1);
    unsigned windows = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned own = windows_of(terms[i].bits, width);
        if (own > windows) windows = own;
    }
    int16_t *digits = calloc((size_t)windows * count, sizeof *digits);
    edwards_bucket *buckets = malloc(half * sizeof *buckets);
    if (digits == NULL || buckets == NULL) {
        free(digits);
        free(buckets);
        return 0;
    }
    for (size_t i = 0; i < count; i++) recode(digits + i, count, &terms[i], width);

    for (unsigned window = windows; window-- > 0;) {
        edwards_point sum;
        edwards_cached cached;
        size_t reach = count; /* short scalars at the end have no digits this high */
        while (reach > 0 && windows_of(terms[reach - 1].bits, width) <= window) reach--;
        engine->sum_window(&sum, buckets, half, terms, digits + (size_t)window * count, reach);
        for (unsigned i = 0; i < width; i++) point_double(out, out, i + 1 == width);
        point_cache(&cached, &sum);
        point_add(out, out, &cached, 0);
    }
    free(digits);
    free(buckets);
    return 1;
}
