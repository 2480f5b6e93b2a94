#include "edwards25519.h"

#include "edwards_formulas.h"

const field EDWARDS_D = {{0x34dca135978a3u, 0x1a8283b156ebdu, 0x5e7a26001c029u, 0x739c663a03cbbu,
                          0x52036cee2b6ffu}};
const field EDWARDS_2D = {{0x69b9426b2f159u, 0x35050762add7au, 0x3cf44c0038052u, 0x6738cc7407977u,
                           0x2406d9dc56dffu}};
const field EDWARDS_ROOT_OF_MINUS_ONE = {{0x61b274a0ea0b0u, 0x0d5a5fc8f189du, 0x7ef5e9cbd0c60u,
                                          0x78595a6804c9eu, 0x2b8324804fc1du}};

/* The base point of RFC 8032: y = 4/5, x even. */
const edwards_affine EDWARDS_BASE = {
    {{0x493c6f58c3b85u, 0x0df7181c325f7u, 0x0f50b0b3e4cb7u, 0x5329385a44c32u, 0x07cf9d3a33d4bu}},
    {{0x03905d740913eu, 0x0ba2817d673a2u, 0x23e2827f4e67cu, 0x133d2e0c21a34u, 0x44fd2f9298f81u}},
    {{0x11205877aaa68u, 0x479955893d579u, 0x50d66309b67a0u, 0x2d42d0dbee5eeu, 0x6f117b689f0c6u}},
};

enum { BASE_WIDTH = 7, POINT_WIDTH = 5 };
#define ODD_MULTIPLES(width) (1 << ((width) - 2))

/* B, 3B, 5B, ... for edwards_double_multiply. */
static edwards_cached base_multiples[ODD_MULTIPLES(BASE_WIDTH)];

unsigned edwards_decode_pair(edwards_affine out[2], const uint8_t first[32],
                             const uint8_t second[32]) {
    const uint8_t *encodings[2] = {first, second};
    field y[2], u[2], v[2], uv3[2], power[2];
    unsigned decoded = 0;
    /* x^2 = u / v with u = y^2 - 1, v = d y^2 + 1; the candidate root is u v^3 (u v^7)^((p-5)/8). */
    for (int i = 0; i < 2; i++) {
        field y2, v2, uv;
        field_load(&y[i], encodings[i]);
        field_square(&y2, &y[i]);
        field_subtract(&u[i], &y2, &FIELD_ONE);
        field_multiply(&v[i], &y2, &EDWARDS_D);
        field_add(&v[i], &v[i], &FIELD_ONE);
        field_square(&v2, &v[i]);
        field_multiply(&uv, &u[i], &v[i]);
        field_multiply(&uv3[i], &uv, &v2);
        field_square(&v2, &v2);
        field_multiply(&power[i], &uv3[i], &v2);
    }
    field_power_pair(power, power);
    for (int i = 0; i < 2; i++) {
        field x, check, minus_u;
        field_multiply(&x, &power[i], &uv3[i]);
        field_square(&check, &x);
        field_multiply(&check, &check, &v[i]);
        field_carry(&u[i]);
        field_negate(&minus_u, &u[i]);
        if (!field_equal(&check, &u[i])) {
            field_carry(&minus_u);
            if (!field_equal(&check, &minus_u)) continue; /* u / v is no square */
            field_multiply(&x, &x, &EDWARDS_ROOT_OF_MINUS_ONE);
        }
        if (field_parity(&x) != encodings[i][31] >> 7) field_negate(&x, &x);
        field_multiply(&out[i].product, &x, &y[i]);
        field_multiply(&out[i].product, &out[i].product, &EDWARDS_2D);
        field_carry(&x);
        field_add(&out[i].sum, &y[i], &x);
        field_subtract(&out[i].difference, &y[i], &x);
        decoded |= 1u << i;
    }
    return decoded;
}

void edwards_identity(edwards_point *out) {
    out->x = FIELD_ZERO;
    out->y = FIELD_ONE;
    out->z = FIELD_ONE;
    out->t = FIELD_ZERO;
}

void edwards_add(edwards_point *out, const edwards_point *a, const edwards_cached *b) {
    point_add(out, a, b, 0);
}

void edwards_subtract_affine(edwards_point *out, const edwards_point *a,
                             const edwards_affine *b) {
    point_add_affine(out, a, b, 1);
}

void edwards_double(edwards_point *out, const edwards_point *a) {
    point_double(out, a, 1);
}

int edwards_has_small_order(const edwards_point *point) {
    edwards_point eightfold = *point;
    for (int i = 0; i < 3; i++) point_double(&eightfold, &eightfold, 0);
    return field_is_zero(&eightfold.x) && field_equal(&eightfold.y, &eightfold.z);
}

/* The point itself, from its prepared form: with Z = 2, X = (y + x) - (y - x), Y = their sum. */
static void from_affine(edwards_point *out, const edwards_affine *a) {
    edwards_point identity;
    edwards_identity(&identity);
    point_add_affine(out, &identity, a, 0);
}

/* out[i] = (2i + 1) * point. */
static void odd_multiples(edwards_cached *out, int count, const edwards_affine *point) {
    edwards_point current, twice;
    edwards_cached step;
    from_affine(&current, point);
    point_double(&twice, &current, 1);
    point_cache(&step, &twice);
    point_cache(&out[0], &current);
    for (int i = 1; i < count; i++) {
        point_add(&current, &current, &step, 0);
        point_cache(&out[i], &current);
    }
}

void edwards_prepare(void) {
    odd_multiples(base_multiples, ODD_MULTIPLES(BASE_WIDTH), &EDWARDS_BASE);
}

static void add_digit(edwards_point *sum, const edwards_cached *multiples, int digit, int negate) {
    if (digit > 0) point_add(sum, sum, &multiples[digit / 2], negate);
    if (digit < 0) point_add(sum, sum, &multiples[-digit / 2], !negate);
}

void edwards_double_multiply(edwards_point *out, const scalar *b, const scalar *a,
                             const edwards_affine *point) {
    edwards_cached multiples[ODD_MULTIPLES(POINT_WIDTH)];
    int8_t base_digits[SCALAR_DIGITS], point_digits[SCALAR_DIGITS];
    odd_multiples(multiples, ODD_MULTIPLES(POINT_WIDTH), point);
    scalar_sparse_digits(base_digits, b, BASE_WIDTH);
    scalar_sparse_digits(point_digits, a, POINT_WIDTH);
    int position = SCALAR_DIGITS - 1;
    while (position > 0 && base_digits[position] == 0 && point_digits[position] == 0) position--;
    edwards_identity(out);
    for (; position >= 0; position--) {
        int base_digit = base_digits[position], point_digit = point_digits[position];
        /* T is needed by additions alone, and by what follows the last doubling. */
        point_double(out, out, base_digit != 0 || point_digit != 0 || position == 0);
        add_digit(out, base_multiples, base_digit, 0);
        add_digit(out, multiples, point_digit, 1);
    }
}
