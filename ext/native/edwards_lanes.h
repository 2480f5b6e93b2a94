/* Decoding and bucket sums with several field elements at once, for each width of vectors alike.
 *
 * Decoding puts LANES points side by side. Adding puts the four products of each half of one addition
 * side by side, as Hisil, Wong, Carter and Dawson 2008 (section 4.1) give it to four processors; where
 * there are eight lanes, two groups of four add in two windows at once, to buckets of their own.
 *
 * Included once, by a file that has defined before:
 *   LANES, GROUPS (= LANES / 4), lane_row, LANE_ROWS, LANES_TARGET, LANES_INLINE
 *   lanes                      LANES elements of the field
 *   lanes_enter, lanes_leave   around everything else
 *   lanes_multiply, lanes_square, lanes_add, lanes_subtract, lanes_from_fields, lanes_to_fields
 *   lanes_choose               lane i of one where bit i is set, of the other elsewhere
 *   lanes_negate               the opposites of the lanes whose bits are set
 *   lanes_gather, lanes_scatter    groups of four from and to rows in memory
 *   lanes_load_ready           a ready point for each group, its opposite where the group's bit is set
 *   lanes_store_ready          LANES points, side by side by coordinate, to rows
 *   lanes_multiply_crosswise   from A, B, C, D in each group to B - A, B + A, D - C, D + C
 *   lanes_spread               from E, H, F, G to (E, H, E, F) and (F, G, H, G)
 *   lanes_multiply_open        from X, Y, T, Z in each group to Y - X, Y + X, T, Z
 *
 * A point in four lanes is *open* as (Y - X, Y + X, T, Z): buckets and sums. It is *ready* to be added
 * as (y - x, y + x, 2dxy, 2) or (Y - X, Y + X, 2dT, 2Z). */
#ifndef ASSAY_EDWARDS_LANES_H
#define ASSAY_EDWARDS_LANES_H

#include <stdlib.h>

#include "edwards_engine.h"
#include "edwards_formulas.h"

enum { PREFETCH_AHEAD = 4, CACHE_LINE = 64 };

LANES_INLINE void broadcast(lanes *out, const field *a) {
    field copies[LANES];
    for (int i = 0; i < LANES; i++) copies[i] = *a;
    lanes_from_fields(out, copies);
}

/* The same four elements in each group. */
LANES_INLINE void broadcast_four(lanes *out, const field four[4]) {
    field copies[LANES];
    for (int i = 0; i < LANES; i++) copies[i] = four[i % 4];
    lanes_from_fields(out, copies);
}

/* out = a^(2^times) * b */
LANES_TARGET static void square_times_multiply(lanes *out, const lanes *a, int times,
                                               const lanes *b) {
    lanes power = *a;
    for (; times > 0; times--) lanes_square(&power, &power);
    lanes_multiply(out, &power, b);
}

/* a^((p - 5) / 8) = a^(2^252 - 3); ones_n stands for a^(2^n - 1). */
LANES_TARGET static void power_lanes(lanes *out, const lanes *a) {
    lanes ones_2, ones_5, ones_10, ones_20, ones_50, ones_100, power;
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

/* The elements in portable form, reduced. */
LANES_TARGET static void lanes_to_reduced(field elements[LANES], const lanes *a) {
    lanes_to_fields(elements, a);
    for (int i = 0; i < LANES; i++) field_carry(&elements[i]);
}

/* Bit i says whether element i is zero modulo p. */
LANES_TARGET static unsigned zero_lanes(const lanes *a) {
    field elements[LANES];
    unsigned zero = 0;
    lanes_to_reduced(elements, a);
    for (int i = 0; i < LANES; i++) zero |= (unsigned)field_is_zero(&elements[i]) << i;
    return zero;
}

LANES_TARGET static unsigned odd_lanes(const lanes *a) {
    field elements[LANES];
    unsigned odd = 0;
    lanes_to_reduced(elements, a);
    for (int i = 0; i < LANES; i++) odd |= (unsigned)field_parity(&elements[i]) << i;
    return odd;
}

/* As edwards_decode_pair, LANES at once; bit i of the result says that encoding i is a point. */
LANES_TARGET static unsigned decode_lanes(edwards_ready out[LANES],
                                          const uint8_t *const encodings[LANES]) {
    lanes y, y2, u, v, v2, uv3, x, other, check, product, one, constant;
    field loaded[LANES];
    unsigned signs = 0;
    for (int i = 0; i < LANES; i++) {
        field_load(&loaded[i], encodings[i]);
        signs |= (unsigned)(encodings[i][31] >> 7) << i;
    }
    lanes_from_fields(&y, loaded);
    broadcast(&one, &FIELD_ONE);
    lanes_square(&y2, &y);
    lanes_subtract(&u, &y2, &one);
    broadcast(&constant, &EDWARDS_D);
    lanes_multiply(&v, &y2, &constant);
    lanes_add(&v, &v, &one);
    lanes_square(&v2, &v);
    lanes_multiply(&uv3, &u, &v);
    lanes_multiply(&uv3, &uv3, &v2);
    lanes_square(&v2, &v2);
    lanes_multiply(&x, &uv3, &v2);
    power_lanes(&x, &x);
    lanes_multiply(&x, &x, &uv3);
    /* v x^2 is u, or -u and then x needs a root of -1, or u / v is no square. */
    lanes_square(&check, &x);
    lanes_multiply(&check, &check, &v);
    lanes_subtract(&other, &check, &u);
    unsigned plain = zero_lanes(&other);
    lanes_add(&other, &check, &u);
    unsigned turned = zero_lanes(&other);
    broadcast(&constant, &EDWARDS_ROOT_OF_MINUS_ONE);
    lanes_multiply(&other, &x, &constant);
    lanes_choose(&x, plain, &x, &other);
    lanes_negate(&x, odd_lanes(&x) ^ signs);
    broadcast(&constant, &EDWARDS_2D);
    lanes_multiply(&product, &x, &y);
    lanes_multiply(&product, &product, &constant);
    lanes_subtract(&other, &y, &x);
    lanes_add(&check, &y, &x);
    lanes_store_ready(out, &other, &check, &product);
    return plain | turned;
}

LANES_TARGET static void decode(edwards_ready *out, uint8_t *decoded,
                                const uint8_t *const *encodings, size_t count) {
    unsigned before = lanes_enter();
    for (size_t start = 0; start < count; start += LANES) {
        const size_t left = count - start < LANES ? count - start : LANES;
        const uint8_t *some[LANES];
        edwards_ready points[LANES];
        for (size_t i = 0; i < LANES; i++) some[i] = encodings[start + (i < left ? i : 0)];
        unsigned found = decode_lanes(points, some);
        for (size_t i = 0; i < left; i++) {
            out[start + i] = points[i];
            decoded[start + i] = found >> i & 1;
        }
    }
    lanes_leave(before);
}

LANES_TARGET static void from_affine(edwards_ready *out, const edwards_affine *point) {
    const field parts[4] = {point->difference, point->sum, point->product, {{2, 0, 0, 0, 0}}};
    lane_row *places[GROUPS];
    unsigned before = lanes_enter();
    lanes loaded;
    broadcast_four(&loaded, parts);
    for (int i = 0; i < GROUPS; i++) places[i] = out->LANE_ROWS;
    lanes_scatter(places, &loaded);
    lanes_leave(before);
}

LANES_TARGET static void to_affine(edwards_affine *out, const edwards_ready *point) {
    field parts[LANES];
    unsigned before = lanes_enter();
    lanes loaded;
    const lane_row *rows[GROUPS];
    for (int i = 0; i < GROUPS; i++) rows[i] = point->LANE_ROWS;
    lanes_load_ready(&loaded, rows, 0);
    lanes_to_reduced(parts, &loaded);
    *out = (edwards_affine){.difference = parts[0], .sum = parts[1], .product = parts[2]};
    lanes_leave(before);
}

/* point += added, the first one open, the second one ready. */
LANES_INLINE void add_ready(lanes *point, const lanes *added) {
    lanes sums, left, right;
    lanes_multiply_crosswise(&sums, point, added); /* E = B - A, H = B + A, F = D - C, G = D + C */
    lanes_spread(&left, &right, &sums);
    lanes_multiply_open(point, &left, &right); /* X = E F, Y = H G, T = E H, Z = F G */
}

LANES_INLINE void prefetch(const void *start) {
    for (size_t offset = 0; offset < sizeof(edwards_bucket); offset += CACHE_LINE)
        __builtin_prefetch((const char *)start + offset);
}

/* Adds every point to the bucket of its digit's size, or its opposite for a negative digit. Buckets of
 * digit 0 take in what one group must not add while another one adds. */
LANES_TARGET static void fill(edwards_bucket *buckets, size_t half, const edwards_term *terms,
                              const int16_t *digits, size_t stride, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (i + PREFETCH_AHEAD < count) {
            for (int group = 0; group < GROUPS; group++) {
                const int ahead = digits[(size_t)group * stride + i + PREFETCH_AHEAD];
                prefetch(&buckets[(size_t)group * (half + 1) + (size_t)abs(ahead)]);
            }
            prefetch(terms[i + PREFETCH_AHEAD].point);
        }
        const lane_row *rows[GROUPS];
        lane_row *places[GROUPS];
        unsigned negative = 0;
        int any = 0;
        for (int group = 0; group < GROUPS; group++) {
            const int digit = digits[(size_t)group * stride + i];
            places[group] =
                buckets[(size_t)group * (half + 1) + (size_t)abs(digit)].LANE_ROWS;
            rows[group] = terms[i].point->LANE_ROWS;
            negative |= (unsigned)(digit < 0) << group;
            any |= digit;
        }
        if (any == 0) continue;
        lanes sum, added;
        lanes_load_ready(&added, rows, negative);
        lanes_gather(&sum, places);
        add_ready(&sum, &added);
        lanes_scatter(places, &sum);
    }
}

/* The points of the groups of an open element, lowest first. */
LANES_TARGET static void store_points(edwards_point out[GROUPS], const lanes *open) {
    field parts[LANES];
    lanes one, reduced;
    broadcast(&one, &FIELD_ONE);
    lanes_multiply(&reduced, open, &one); /* an open element may have limbs too large to store */
    lanes_to_reduced(parts, &reduced);
    for (int group = 0; group < GROUPS; group++) {
        const field *four = parts + 4 * group; /* twice each coordinate is the same point */
        edwards_point *point = &out[group];
        field_subtract(&point->x, &four[1], &four[0]);
        field_add(&point->y, &four[1], &four[0]);
        field_add(&point->t, &four[2], &four[2]);
        field_add(&point->z, &four[3], &four[3]);
        field_carry(&point->x);
        field_carry(&point->y);
        field_carry(&point->t);
        field_carry(&point->z);
    }
}

/* The identity, open, and what makes an open point ready when it is multiplied by it. */
LANES_TARGET static void load_constants(lanes *identity, lanes *factors) {
    const field identity_parts[4] = {FIELD_ONE, FIELD_ONE, FIELD_ZERO, FIELD_ONE};
    const field factor_parts[4] = {FIELD_ONE, FIELD_ONE, EDWARDS_2D, {{2, 0, 0, 0, 0}}};
    broadcast_four(identity, identity_parts);
    broadcast_four(factors, factor_parts);
}

LANES_TARGET static void sum_windows(edwards_point *sums, edwards_bucket *buckets, size_t half,
                                     const edwards_term *terms, const int16_t *digits,
                                     size_t stride, size_t count) {
    unsigned before = lanes_enter();
    lanes identity, total, factors, running;
    lane_row *places[GROUPS];
    load_constants(&identity, &factors);
    for (size_t i = 0; i <= half; i++) {
        for (size_t group = 0; group < GROUPS; group++)
            places[group] = buckets[group * (half + 1) + i].LANE_ROWS;
        lanes_scatter(places, &identity);
    }
    fill(buckets, half, terms, digits, stride, count);
    /* The sum of i * buckets[i] is the sum of the running sums from the last bucket down. A running sum
     * is made ready once, to be added to the total and to the next bucket. */
    total = identity;
    lanes_multiply(&running, &identity, &factors);
    for (size_t i = half; i > 0; i--) {
        lanes bucket;
        for (size_t group = 0; group < GROUPS; group++)
            places[group] = buckets[group * (half + 1) + i].LANE_ROWS;
        lanes_gather(&bucket, places);
        add_ready(&bucket, &running);
        lanes_multiply(&running, &bucket, &factors);
        add_ready(&total, &running);
    }
    store_points(sums, &total);
    lanes_leave(before);
}

/* Few terms: each has a table of its odd multiples, and all share one run of doublings (Straus 1964). */
enum { LONG_WIDTH = 5, SHORT_WIDTH = 4, SHORT_BITS = 128 };
enum { MULTIPLES = 1 << (LONG_WIDTH - 2), DIGITS_MAX = SCALAR_DIGITS / SHORT_WIDTH + 1 };

/* A digit that is not zero: what to add at its position. */
typedef struct {
    const edwards_ready *multiple;
    uint32_t negative;
    uint32_t next; /* of the same position, counted from 1; 0 ends them */
} addend;

static unsigned width_of(const edwards_term *term) {
    return term->bits > SHORT_BITS ? LONG_WIDTH : SHORT_WIDTH;
}

/* multiples[i * MULTIPLES + j] = (2j + 1) * point i, as many as digits of its width need. */
LANES_TARGET static void multiply_oddly(edwards_ready *multiples, const edwards_term *terms,
                                        size_t count) {
    lanes identity, factors;
    load_constants(&identity, &factors);
    for (size_t start = 0; start < count; start += GROUPS) {
        const lane_row *rows[GROUPS];
        edwards_ready *tables[GROUPS], spare[MULTIPLES];
        lane_row *places[GROUPS];
        unsigned width = SHORT_WIDTH;
        for (size_t group = 0; group < GROUPS; group++) {
            const size_t i = start + group < count ? start + group : start;
            rows[group] = terms[i].point->LANE_ROWS;
            tables[group] = i == start + group ? multiples + i * MULTIPLES : spare;
            if (width_of(&terms[i]) > width) width = width_of(&terms[i]);
        }
        lanes point, multiple, step, ready;
        lanes_load_ready(&ready, rows, 0);
        multiple = identity;
        add_ready(&multiple, &ready);
        point = multiple;
        add_ready(&point, &ready);
        lanes_multiply(&step, &point, &factors); /* twice the point */
        for (unsigned j = 0;; j++) {
            for (size_t group = 0; group < GROUPS; group++)
                places[group] = tables[group][j].LANE_ROWS;
            lanes_scatter(places, &ready);
            if (j + 1 == 1u << (width - 2)) break;
            add_ready(&multiple, &step);
            lanes_multiply(&ready, &multiple, &factors);
        }
    }
}

/* Fills addends with every digit's; first[position] is the first one there, as `next` counts. */
static void list_addends(addend *addends, uint32_t first[SCALAR_DIGITS],
                         const edwards_ready *multiples, const edwards_term *terms, size_t count) {
    int8_t digits[SCALAR_DIGITS];
    uint32_t used = 0;
    memset(first, 0, SCALAR_DIGITS * sizeof *first);
    for (size_t i = 0; i < count; i++) {
        scalar_sparse_digits(digits, &terms[i].multiplier, width_of(&terms[i]));
        for (unsigned position = 0; position < SCALAR_DIGITS; position++) {
            const int digit = digits[position];
            if (digit == 0) continue;
            addends[used] = (addend){&multiples[i * MULTIPLES + (size_t)abs(digit) / 2], digit < 0,
                                     first[position]};
            first[position] = ++used;
        }
    }
}

/* sum = the sum of each addend times 2^position. */
LANES_TARGET static void add_listed(edwards_point *sum, const addend *addends,
                                    const uint32_t first[SCALAR_DIGITS]) {
    lanes identity, factors, total, ready;
    edwards_ready nothing; /* for groups without an addend */
    edwards_point points[GROUPS];
    lane_row *places[GROUPS];
    load_constants(&identity, &factors);
    lanes_multiply(&ready, &identity, &factors);
    for (int group = 0; group < GROUPS; group++) places[group] = nothing.LANE_ROWS;
    lanes_scatter(places, &ready);
    total = identity;
    for (unsigned position = SCALAR_DIGITS; position-- > 0;) {
        lanes_multiply(&ready, &total, &factors);
        add_ready(&total, &ready);
        for (uint32_t next = first[position]; next != 0;) {
            const lane_row *rows[GROUPS];
            unsigned negative = 0;
            for (int group = 0; group < GROUPS; group++) {
                rows[group] = nothing.LANE_ROWS;
                if (next == 0) continue;
                const addend *one = &addends[next - 1];
                rows[group] = one->multiple->LANE_ROWS;
                negative |= one->negative << group;
                next = one->next;
            }
            if (next != 0) prefetch(addends[next - 1].multiple);
            lanes_load_ready(&ready, rows, negative);
            add_ready(&total, &ready);
        }
    }
    store_points(points, &total);
    *sum = points[0];
    for (int group = 1; group < GROUPS; group++) {
        edwards_cached cached;
        point_cache(&cached, &points[group]);
        point_add(sum, sum, &cached, 0);
    }
}

LANES_TARGET static int sum_few(edwards_point *sum, const edwards_term *terms, size_t count) {
    edwards_ready *multiples = malloc(count * MULTIPLES * sizeof *multiples);
    addend *addends = malloc(count * DIGITS_MAX * sizeof *addends);
    uint32_t first[SCALAR_DIGITS];
    const int enough = multiples != NULL && addends != NULL;
    if (enough) {
        unsigned before = lanes_enter();
        multiply_oddly(multiples, terms, count);
        list_addends(addends, first, multiples, terms, count);
        add_listed(sum, addends, first);
        lanes_leave(before);
    }
    free(multiples);
    free(addends);
    return enough;
}

#endif
