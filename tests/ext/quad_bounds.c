/* Four lanes against portable field arithmetic, with limbs at and near the bounds that are allowed, and
 * with the thread's rounding mode set to each of the four. Prints "right", or ends with 1. */
#include <stdio.h>

#if defined(__x86_64__)
#include <stdlib.h>

#include "edwards_engine.h"
#include "field25519_avx2.h"

enum { ROUNDS = 20000 };
static const double REDUCED = 0x1p50 + 0x1p13;

static uint64_t state = 1;

static uint64_t next_random(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 11 ^ state << 20;
}

/* An integer of at most `bound` in size, often at the bound or next to it. */
static double limb_within(double bound) {
    uint64_t choice = next_random() % 8, span = (uint64_t)bound;
    double size = choice < 3 ? bound - (double)choice : (double)(next_random() % (span + 1));
    return next_random() & 64 ? size : -size;
}

static void fill(double lanes[5][4], double bound) {
    for (int i = 0; i < 5; i++)
        for (int lane = 0; lane < 4; lane++) lanes[i][lane] = limb_within(bound);
}

/* The same element in portable form; 4p keeps every limb positive. */
static field portable(double lanes[5][4], int lane) {
    field out;
    for (int i = 0; i < 5; i++) {
        int64_t four_p = i == 0 ? 0x1fffffffffffb4 : 0x1ffffffffffffc;
        out.limb[i] = (uint64_t)((int64_t)lanes[i][lane] + four_p);
    }
    field_carry(&out);
    return out;
}

static int same(double lanes[5][4], const field expected[4]) {
    for (int lane = 0; lane < 4; lane++) {
        field found = portable(lanes, lane);
        if (!field_equal(&found, &expected[lane])) return 0;
        for (int i = 0; i < 5; i++)
            if (lanes[i][lane] > REDUCED || lanes[i][lane] < -REDUCED) return 0;
    }
    return 1;
}

LANES_TARGET static int round_right(void) {
    double a[5][4], b[5][4], out[5][4];
    field expected[4], back[4];
    lanes left, right, result;
    fill(a, 2 * REDUCED);
    fill(b, REDUCED);
    for (int i = 0; i < 5; i++) {
        left.limb[i] = _mm256_loadu_pd(a[i]);
        right.limb[i] = _mm256_loadu_pd(b[i]);
    }
    lanes_multiply(&result, &left, &right);
    for (int i = 0; i < 5; i++) _mm256_storeu_pd(out[i], result.limb[i]);
    for (int lane = 0; lane < 4; lane++) {
        field one = portable(a, lane), other = portable(b, lane);
        field_multiply(&expected[lane], &one, &other);
    }
    if (!same(out, expected)) return 0;
    lanes_square(&result, &right);
    for (int i = 0; i < 5; i++) _mm256_storeu_pd(out[i], result.limb[i]);
    for (int lane = 0; lane < 4; lane++) {
        field one = portable(b, lane);
        field_square(&expected[lane], &one);
    }
    if (!same(out, expected)) return 0;
    fill(a, REDUCED);
    for (int i = 0; i < 5; i++) left.limb[i] = _mm256_loadu_pd(a[i]);
    lanes_subtract(&result, &left, &right);
    for (int i = 0; i < 5; i++) _mm256_storeu_pd(out[i], result.limb[i]);
    for (int lane = 0; lane < 4; lane++) {
        field one = portable(a, lane), other = portable(b, lane);
        field_subtract(&expected[lane], &one, &other);
        field_carry(&expected[lane]);
    }
    if (!same(out, expected)) return 0;
    lanes_add(&result, &left, &right);
    for (int i = 0; i < 5; i++) _mm256_storeu_pd(out[i], result.limb[i]);
    for (int lane = 0; lane < 4; lane++) {
        field one = portable(a, lane), other = portable(b, lane);
        field_add(&expected[lane], &one, &other);
        field_carry(&expected[lane]);
    }
    if (!same(out, expected)) return 0;
    lanes_to_fields(back, &left);
    for (int lane = 0; lane < 4; lane++) {
        expected[lane] = portable(a, lane);
        field_carry(&back[lane]);
        if (!field_equal(&back[lane], &expected[lane])) return 0;
    }
    lanes_from_fields(&result, back);
    for (int i = 0; i < 5; i++) _mm256_storeu_pd(out[i], result.limb[i]);
    return same(out, expected);
}

LANES_TARGET static int right_in_mode(unsigned mode) {
    _MM_SET_ROUNDING_MODE(mode);
    unsigned before = lanes_enter();
    int right = round_right();
    lanes_leave(before);
    return right && _MM_GET_ROUNDING_MODE() == mode;
}

int main(void) {
    const unsigned modes[4] = {_MM_ROUND_NEAREST, _MM_ROUND_UP, _MM_ROUND_DOWN,
                               _MM_ROUND_TOWARD_ZERO};
    for (int round = 0; edwards_avx2() != NULL && round < ROUNDS; round++)
        if (!right_in_mode(modes[round % 4])) return 1;
    puts("right");
    return 0;
}

#else
int main(void) {
    puts("right");
    return 0;
}
#endif
