/* Sums of many multiples by Pippenger's bucket method (of few ones, an engine may know a better way).
 *
 * Each scalar is cut into windows of `width` bits, recoded to signed digits from -half to half - 1. For each
 * window, from the highest down, every point is added to the bucket of its digit's size; one sweep over
 * the buckets gives sum of size * bucket; and `width` doublings lead to the next window. */
#include <stdlib.h>
#include <string.h>

#include "edwards_engine.h"
#include "edwards_formulas.h"

enum { WIDTH_MIN = 3, WIDTH_MAX = 13 };
/* A word more than a scalar has: 253 bits, two above them, and what a window hangs over. */
enum { WORDS = 5, RECODE_TERMS = 64 };
/* Costs in field multiplications, squarings counted as one. */
enum { COST_ADD_AFFINE = 7, COST_BUCKET = 17, COST_DOUBLE = 8 };

/* Up to so many terms, tables of odd multiples cost less than buckets; measured with AVX2. */
enum { FEW_TERMS_MAX = 96 };

/* A scalar below 2^bits has this many digits. They reach two bits above it, because digits from -half
 * to half - 1 reach less far up than down. */
static unsigned windows_of(unsigned bits, unsigned width) {
    return (bits + 1 + width) / width;
}

static unsigned round_up(unsigned number, unsigned multiple) {
    return (number + multiple - 1) / multiple * multiple;
}

static uint64_t cost_of(const edwards_engine *engine, const edwards_term *terms, size_t count,
                        unsigned width) {
    unsigned windows = 0, windows_max = 0, bits = 0;
    uint64_t additions = 0;
    for (size_t i = 0; i < count; i++) {
        if (terms[i].bits != bits) {
            bits = terms[i].bits;
            windows = windows_of(bits, width);
            if (windows > windows_max) windows_max = windows;
        }
        additions += windows;
    }
    windows_max = round_up(windows_max, engine->windows_at_once);
    uint64_t half = (uint64_t)1 << (width - 1);
    return additions * COST_ADD_AFFINE +
           windows_max * (half * COST_BUCKET + (uint64_t)width * COST_DOUBLE);
}

static unsigned best_width(const edwards_engine *engine, const edwards_term *terms, size_t count) {
    unsigned best = WIDTH_MIN;
    uint64_t best_cost = cost_of(engine, terms, count, WIDTH_MIN);
    for (unsigned width = WIDTH_MIN + 1; width <= WIDTH_MAX; width++) {
        uint64_t cost = cost_of(engine, terms, count, width);
        if (cost >= best_cost) continue; /* rounding up windows may leave more than one minimum */
        best = width;
        best_cost = cost;
    }
    return best;
}

/* out = the sum of half * 2^(width * window) over the windows. */
static void add_up_halves(uint64_t out[WORDS], unsigned windows, unsigned width) {
    memset(out, 0, WORDS * sizeof *out);
    for (unsigned window = 0; window < windows; window++) {
        unsigned position = window * width + width - 1;
        out[position / 64] |= (uint64_t)1 << position % 64;
    }
}

static void add_words(uint64_t out[WORDS], const uint64_t a[WORDS], const scalar *b) {
    uint64_t carry = 0;
    for (int i = 0; i < WORDS; i++) {
        assay_u128 sum = (assay_u128)a[i] + (i < 4 ? b->limb[i] : 0) + carry;
        out[i] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
    }
}

/* digits[window * count + i] for each window of term i. With half a window's range added in every
 * window no digit is negative, and each can be cut out alone: the bits less half are the digit. */
static void recode(int16_t *digits, const edwards_term *terms, size_t count, unsigned width) {
    const int32_t half = 1 << (width - 1);
    const uint64_t mask = ((uint64_t)1 << width) - 1;
    uint64_t halves[WORDS], words[RECODE_TERMS][WORDS];
    unsigned windows[RECODE_TERMS], added = 0;
    for (size_t start = 0; start < count; start += RECODE_TERMS) {
        const size_t size = count - start < RECODE_TERMS ? count - start : RECODE_TERMS;
        unsigned windows_max = 0;
        for (size_t i = 0; i < size; i++) {
            const edwards_term *term = &terms[start + i];
            windows[i] = windows_of(term->bits, width);
            if (windows[i] > windows_max) windows_max = windows[i];
            if (windows[i] != added) add_up_halves(halves, windows[i], width);
            added = windows[i];
            add_words(words[i], halves, &term->multiplier);
        }
        for (unsigned window = 0; window < windows_max; window++) {
            const unsigned word = window * width / 64, shift = window * width % 64;
            int16_t *row = digits + window * count + start;
            for (size_t i = 0; i < size; i++) {
                uint64_t bits = words[i][word] >> shift;
                if (shift + width > 64) bits |= words[i][word + 1] << (64 - shift);
                if (window < windows[i]) row[i] = (int16_t)((int32_t)(bits & mask) - half);
            }
        }
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

static void portable_sum_windows(edwards_point *sum, edwards_bucket *buckets, size_t half,
                                 const edwards_term *terms, const int16_t *digits, size_t stride,
                                 size_t count) {
    edwards_cached running;
    (void)stride; /* one window at once */
    for (size_t i = 0; i <= half; i++) edwards_identity(&buckets[i].point);
    for (size_t i = 0; i < count; i++) {
        const edwards_affine *point = &terms[i].point->affine;
        edwards_point *bucket = &buckets[abs(digits[i])].point;
        if (digits[i] > 0) point_add_affine(bucket, bucket, point, 0);
        if (digits[i] < 0) point_add_affine(bucket, bucket, point, 1);
    }
    /* The sum of i * buckets[i] is the sum of the running sums from the last bucket down. A running sum
     * is made ready once, to be added to the total and to the next bucket. */
    edwards_identity(sum);
    point_cache(&running, sum);
    for (size_t i = half; i > 0; i--) {
        edwards_point *bucket = &buckets[i].point;
        point_add(bucket, bucket, &running, 0);
        point_cache(&running, bucket);
        point_add(sum, sum, &running, 0);
    }
}

static const edwards_engine PORTABLE_ENGINE = {
    .name = "portable",
    .windows_at_once = 1,
    .decode = portable_decode,
    .from_affine = portable_from_affine,
    .to_affine = portable_to_affine,
    .sum_windows = portable_sum_windows,
};

const edwards_engine *edwards_portable(void) {
    return &PORTABLE_ENGINE;
}

/* out = 2^width * out + added */
static void move_up_and_add(edwards_point *out, unsigned width, const edwards_point *added) {
    edwards_cached cached;
    for (unsigned i = 0; i < width; i++) point_double(out, out, i + 1 == width);
    point_cache(&cached, added);
    point_add(out, out, &cached, 0);
}

int edwards_sum_multiples(const edwards_engine *engine, edwards_point *out,
                          const edwards_term *terms, size_t count) {
    edwards_identity(out);
    if (count == 0) return 1;
    if (count <= FEW_TERMS_MAX && engine->sum_few != NULL)
        return engine->sum_few(out, terms, count);
    const unsigned width = best_width(engine, terms, count), at_once = engine->windows_at_once;
    const size_t half = (size_t)1 << (width - 1);
    unsigned windows = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned own = windows_of(terms[i].bits, width);
        if (own > windows) windows = own;
    }
    windows = round_up(windows, at_once); /* a window too many has digits of 0 */
    int16_t *digits = calloc((size_t)windows * count, sizeof *digits);
    edwards_bucket *buckets = malloc(at_once * (half + 1) * sizeof *buckets);
    if (digits == NULL || buckets == NULL) {
        free(digits);
        free(buckets);
        return 0;
    }
    recode(digits, terms, count, width);

    for (unsigned window = windows; window > 0;) {
        edwards_point sums[WINDOWS_AT_ONCE_MAX];
        size_t reach = count; /* short scalars at the end have no digits this high */
        window -= at_once;
        while (reach > 0 && windows_of(terms[reach - 1].bits, width) <= window) reach--;
        engine->sum_windows(sums, buckets, half, terms, digits + (size_t)window * count, count,
                            reach);
        for (unsigned i = at_once; i-- > 0;) move_up_and_add(out, width, &sums[i]);
    }
    free(digits);
    free(buckets);
    return 1;
}
