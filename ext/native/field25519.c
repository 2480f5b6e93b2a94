#include "field25519.h"

/* The representative in [0, p). */
static void freeze(uint64_t out[5], const field *a) {
    uint64_t carry;
    memcpy(out, a->limb, 5 * sizeof *out);
    /* Two passes bring every limb below 2^51, the value below 2^255. */
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < 4; i++) {
            out[i + 1] += out[i] >> 51;
            out[i] &= FIELD_MASK;
        }
        carry = out[4] >> 51;
        out[4] &= FIELD_MASK;
        out[0] += 19 * carry;
    }
    /* value >= p exactly when value + 19 reaches 2^255. */
    carry = 19;
    for (int i = 0; i < 5; i++) carry = (out[i] + carry) >> 51;
    out[0] += 19 * carry;
    for (int i = 0; i < 4; i++) {
        out[i + 1] += out[i] >> 51;
        out[i] &= FIELD_MASK;
    }
    out[4] &= FIELD_MASK;
}

int field_is_zero(const field *a) {
    uint64_t limbs[5];
    freeze(limbs, a);
    return (limbs[0] | limbs[1] | limbs[2] | limbs[3] | limbs[4]) == 0;
}

int field_equal(const field *a, const field *b) {
    field difference;
    field_subtract(&difference, a, b);
    return field_is_zero(&difference);
}

int field_parity(const field *a) {
    uint64_t limbs[5];
    freeze(limbs, a);
    return (int)(limbs[0] & 1);
}

/* out = a^(2^times) * b, elementwise on pairs. */
static void square_times_multiply(field out[2], const field a[2], int times, const field b[2]) {
    field first = a[0], second = a[1];
    for (; times > 0; times--) {
        field_square(&first, &first);
        field_square(&second, &second);
    }
    field_multiply(&out[0], &first, &b[0]);
    field_multiply(&out[1], &second, &b[1]);
}

void field_power_pair(field out[2], const field a[2]) {
    /* (p - 5) / 8 = 2^252 - 3. ones_n stands for a^(2^n - 1). */
    field ones_2[2], ones_4[2], ones_5[2], ones_10[2], ones_20[2], ones_40[2], ones_50[2];
    field ones_100[2], ones_200[2], ones_250[2];
    square_times_multiply(ones_2, a, 1, a);
    square_times_multiply(ones_4, ones_2, 2, ones_2);
    square_times_multiply(ones_5, ones_4, 1, a);
    square_times_multiply(ones_10, ones_5, 5, ones_5);
    square_times_multiply(ones_20, ones_10, 10, ones_10);
    square_times_multiply(ones_40, ones_20, 20, ones_20);
    square_times_multiply(ones_50, ones_40, 10, ones_10);
    square_times_multiply(ones_100, ones_50, 50, ones_50);
    square_times_multiply(ones_200, ones_100, 100, ones_100);
    square_times_multiply(ones_250, ones_200, 50, ones_50);
    square_times_multiply(out, ones_250, 2, a);
}
