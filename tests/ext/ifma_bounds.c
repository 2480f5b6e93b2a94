/* Eight lanes against portable field arithmetic, with limbs at and near the bounds that are allowed; built
 * with ASSAY_CHECK_LIMBS, so that bounds inside an operation are checked as well. Prints "right", or ends
 * with 1. */
#include <stdio.h>

#include "edwards25519_ifma.c" /* its own functions are tested */

enum { ROUNDS = 3000 };

static uint64_t state = 1;

static uint64_t next_random(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 11 ^ state << 20;
}

/* Below `bound`, often next to it or next to 0. */
static uint64_t limb_below(uint64_t bound) {
    const uint64_t choice = next_random() % 8;
    if (choice < 4) return bound - 1 - choice / 2;
    return choice == 4 ? next_random() % 3 : next_random() % bound;
}

LANES_TARGET static void fill_below(lanes *out, uint64_t bound) {
    for (int i = 0; i < 5; i++) {
        uint64_t words[LANES];
        for (int lane = 0; lane < LANES; lane++) words[lane] = limb_below(bound);
        out->limb[i] = _mm512_loadu_si512(words);
    }
}

/* Whether `found` is reduced and stands for the same elements; `expected` may be loose. */
LANES_TARGET static int same(const lanes *found, const field expected[LANES]) {
    field elements[LANES];
    lanes_to_fields(elements, found);
    for (int lane = 0; lane < LANES; lane++) {
        field right = expected[lane];
        for (int i = 0; i < 5; i++)
            if (elements[lane].limb[i] >= LANES_REDUCED) return 0;
        field_carry(&right);
        field_carry(&elements[lane]);
        if (!field_equal(&elements[lane], &right)) return 0;
    }
    return 1;
}

/* Likewise for what one operation should make of each lane of a and b. */
#define SAME(found, expression)                                       \
    do {                                                              \
        field expected[LANES];                                        \
        for (int lane = 0; lane < LANES; lane++) {                    \
            field *const out = &expected[lane];                       \
            const field *const x = &a[lane], *const y = &b[lane];     \
            (void)x, (void)y;                                         \
            expression;                                               \
        }                                                             \
        if (!same(found, expected)) return 0;                         \
    } while (0)

LANES_TARGET static int arithmetic_right(void) {
    lanes left, right, result;
    field a[LANES], b[LANES];
    const unsigned bits = (unsigned)next_random() & 0xff;
    fill_below(&left, LANES_REDUCED);
    fill_below(&right, LANES_FITTING);
    lanes_to_fields(a, &left);
    lanes_to_fields(b, &right);
    lanes_multiply(&result, &left, &right);
    SAME(&result, field_multiply(out, x, y));
    lanes_square(&result, &left);
    SAME(&result, field_square(out, x));
    fill_below(&right, LANES_REDUCED);
    lanes_to_fields(b, &right);
    for (int lane = 0; lane < LANES; lane++) field_carry(&b[lane]); /* portable bounds are tighter */
    lanes_add(&result, &left, &right);
    SAME(&result, field_add(out, x, y));
    lanes_subtract(&result, &left, &right);
    SAME(&result, field_subtract(out, x, y));
    lanes_choose(&result, bits, &left, &right);
    SAME(&result, *out = bits >> lane & 1 ? *x : *y);
    result = right;
    lanes_negate(&result, bits);
    SAME(&result, bits >> lane & 1 ? field_negate(out, y) : (void)(*out = *y));
    lanes_from_fields(&result, a);
    SAME(&result, *out = *x);
    return 1;
}

/* The products a[lane] * b[lane] of each group of four, then `first` - `second` and so on. */
LANES_TARGET static int adding_right(void) {
    lanes left, right, result, other;
    field a[LANES], b[LANES], product[LANES], expected[LANES];
    fill_below(&left, LANES_REDUCED);
    fill_below(&right, LANES_FITTING);
    lanes_to_fields(a, &left);
    lanes_to_fields(b, &right);
    for (int lane = 0; lane < LANES; lane++) field_multiply(&product[lane], &a[lane], &b[lane]);
    lanes_multiply_crosswise(&result, &left, &right);
    for (int even = 0; even < LANES; even += 2) {
        field_subtract(&expected[even], &product[even + 1], &product[even]);
        field_add(&expected[even + 1], &product[even + 1], &product[even]);
    }
    if (!same(&result, expected)) return 0;
    lanes_multiply_open(&result, &left, &right);
    for (int group = 0; group < LANES; group += 4)
        for (int lane = group + 2; lane < group + 4; lane++) expected[lane] = product[lane];
    if (!same(&result, expected)) return 0;
    lanes_spread(&result, &other, &left);
    const int from_left[4] = {0, 1, 0, 2}, from_right[4] = {2, 3, 1, 3};
    for (int lane = 0; lane < LANES; lane++) expected[lane] = a[lane / 4 * 4 + from_left[lane % 4]];
    if (!same(&result, expected)) return 0;
    for (int lane = 0; lane < LANES; lane++)
        expected[lane] = a[lane / 4 * 4 + from_right[lane % 4]];
    return same(&other, expected);
}

/* A ready point goes to either group, there as its opposite or not, and comes through memory. */
LANES_TARGET static int moving_right(void) {
    edwards_ready stored[GROUPS];
    const lane_row *rows[GROUPS] = {stored[1].words, stored[0].words};
    lane_row *places[GROUPS] = {stored[0].words, stored[1].words};
    lanes point, loaded, one;
    field parts[LANES], elements[LANES];
    fill_below(&point, LANES_REDUCED);
    lanes_to_fields(parts, &point);
    lanes_scatter(places, &point);
    lanes_gather(&loaded, places);
    if (!same(&loaded, parts)) return 0;
    broadcast(&one, &FIELD_ONE);
    for (unsigned negative = 0; negative < 4; negative++) {
        lanes_load_ready(&loaded, rows, negative); /* the groups trade places */
        lanes_multiply(&loaded, &one, &loaded); /* an opposite is fitting only */
        for (int lane = 0; lane < LANES; lane++) {
            const int opposite = (int)(negative >> (lane / 4) & 1), place = lane % 4;
            field *out = &elements[lane];
            *out = parts[(lane ^ 4) / 4 * 4 + (opposite && place < 2 ? 1 - place : place)];
            field_carry(out);
            if (opposite && place == 2) field_negate(out, out);
        }
        if (!same(&loaded, elements)) return 0;
    }
    return 1;
}

int main(void) {
    if (edwards_ifma() == NULL) return 1; /* the processor lacks the instructions */
    for (int round = 0; round < ROUNDS; round++)
        if (!arithmetic_right() || !adding_right() || !moving_right()) return 1;
    puts("right");
    return 0;
}
