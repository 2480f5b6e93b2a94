#include "scalar25519.h"

#include <string.h>

#include "field25519.h"

static const uint64_t ORDER[5] = {0x5812631a5cf5d3edu, 0x14def9dea2f79cd6u, 0x0000000000000000u,
                                  0x1000000000000000u, 0};
/* floor(2^512 / L), for Barrett's reduction with base 2^64 and four limbs. */
static const uint64_t RECIPROCAL[5] = {0xed9ce5a30a2c131bu, 0x2106215d086329a7u,
                                       0xffffffffffffffebu, 0xffffffffffffffffu,
                                       0x000000000000000fu};

/* a -= b over `limbs` limbs; returns the borrow. */
static uint64_t subtract(uint64_t *a, const uint64_t *b, int limbs) {
    uint64_t borrow = 0;
    for (int i = 0; i < limbs; i++) {
        assay_u128 difference = (assay_u128)a[i] - b[i] - borrow;
        a[i] = (uint64_t)difference;
        borrow = (uint64_t)(difference >> 64) & 1;
    }
    return borrow;
}

static int at_least_order(const uint64_t *a, int limbs) {
    for (int i = limbs - 1; i >= 0; i--)
        if (a[i] != ORDER[i]) return a[i] > ORDER[i];
    return 1;
}

/* out += a * b, schoolbook, keeping `out_limbs` limbs. `out` starts at zero. */
static void multiply(uint64_t *out, int out_limbs, const uint64_t *a, int a_limbs,
                     const uint64_t *b, int b_limbs) {
    for (int i = 0; i < a_limbs; i++) {
        uint64_t carry = 0;
        for (int j = 0; j < b_limbs && i + j < out_limbs; j++) {
            assay_u128 sum = (assay_u128)a[i] * b[j] + out[i + j] + carry;
            out[i + j] = (uint64_t)sum;
            carry = (uint64_t)(sum >> 64);
        }
        if (i + b_limbs < out_limbs) out[i + b_limbs] = carry;
    }
}

/* Barrett: with quotient = floor(floor(x / 2^192) * floor(2^512 / L) / 2^320), the remainder
 * x - quotient * L lies in [0, 3L), so five limbs and two subtractions are enough. */
static void reduce(scalar *out, const uint64_t x[8]) {
    uint64_t estimate[10] = {0}, multiple[5] = {0}, remainder[5];
    multiply(estimate, 10, x + 3, 5, RECIPROCAL, 5);
    multiply(multiple, 5, estimate + 5, 5, ORDER, 4);
    memcpy(remainder, x, sizeof remainder);
    subtract(remainder, multiple, 5);
    while (at_least_order(remainder, 5)) subtract(remainder, ORDER, 5);
    memcpy(out->limb, remainder, sizeof out->limb);
}

int scalar_load_canonical(scalar *out, const uint8_t bytes[32]) {
    for (int i = 0; i < 4; i++) out->limb[i] = load_le64(bytes + 8 * i);
    return !at_least_order(out->limb, 4);
}

void scalar_reduce(scalar *out, const uint8_t bytes[64]) {
    uint64_t wide[8];
    for (int i = 0; i < 8; i++) wide[i] = load_le64(bytes + 8 * i);
    reduce(out, wide);
}

void scalar_add(scalar *out, const scalar *a, const scalar *b) {
    uint64_t carry = 0; /* stays zero at the end: a + b < 2^254 */
    for (int i = 0; i < 4; i++) {
        assay_u128 sum = (assay_u128)a->limb[i] + b->limb[i] + carry;
        out->limb[i] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
    }
    if (at_least_order(out->limb, 4)) subtract(out->limb, ORDER, 4);
}

void scalar_multiply(scalar *out, const scalar *a, const scalar *b) {
    uint64_t wide[8] = {0};
    multiply(wide, 8, a->limb, 4, b->limb, 4);
    reduce(out, wide);
}

void scalar_negate(scalar *out, const scalar *a) {
    uint64_t difference[4];
    if ((a->limb[0] | a->limb[1] | a->limb[2] | a->limb[3]) == 0) {
        memset(out, 0, sizeof *out);
        return;
    }
    memcpy(difference, ORDER, sizeof difference);
    subtract(difference, a->limb, 4);
    memcpy(out->limb, difference, sizeof out->limb);
}

void scalar_sparse_digits(int8_t digits[SCALAR_DIGITS], const scalar *a, unsigned width) {
    const uint64_t mask = ((uint64_t)1 << width) - 1;
    uint64_t words[5] = {a->limb[0], a->limb[1], a->limb[2], a->limb[3], 0};
    uint64_t carry = 0;
    memset(digits, 0, SCALAR_DIGITS);
    for (unsigned position = 0; position < SCALAR_DIGITS;) {
        unsigned word = position / 64, shift = position % 64;
        uint64_t bits = words[word] >> shift;
        if (shift > 0) bits |= words[word + 1] << (64 - shift);
        uint64_t window = (bits & mask) + carry;
        if (!(window & 1)) {
            position++;
            continue;
        }
        /* An upper half becomes negative and is made good one window higher. */
        carry = window >> (width - 1);
        digits[position] = (int8_t)((int64_t)window - (int64_t)(carry << width));
        position += width;
    }
}
