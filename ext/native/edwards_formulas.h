/* Addition and doubling for a = -1 in extended coordinates (Hisil, Wong, Carter, Dawson: "Twisted
 * Edwards curves revisited", 2008, sections 3.1 and 3.3), with limb bounds in multiples of 2^51, small
 * terms left out: reduced 1, an operand of multiply or square below 8. */
#ifndef ASSAY_EDWARDS_FORMULAS_H
#define ASSAY_EDWARDS_FORMULAS_H

#include "edwards25519.h"

/* From A = (Y1 - X1)(Y2 - X2), B = (Y1 + X1)(Y2 + X2), C = 2d T1 T2, D = 2 Z1 Z2. */
FIELD_INLINE void point_finish(edwards_point *out, const field *a, const field *b, const field *c,
                               const field *d, int negate) {
    field e, f, g, h;
    field_subtract(&e, b, a); /* 3 */
    field_add(&h, b, a);      /* 2 */
    field_subtract(&f, d, c); /* 4 */
    field_add(&g, d, c);      /* 3 */
    if (negate) {             /* C stands for its opposite */
        field swap = f;
        f = g;
        g = swap;
    }
    field_multiply(&out->x, &e, &f);
    field_multiply(&out->y, &g, &h);
    field_multiply(&out->z, &f, &g);
    field_multiply(&out->t, &e, &h);
}

/* out = a + b, or a - b: the opposite of (x, y) is (-x, y), which swaps y + x with y - x. */
FIELD_INLINE void point_add_affine(edwards_point *out, const edwards_point *p,
                                   const edwards_affine *q, int negate) {
    field a, b, c, d, sum, difference;
    field_subtract(&difference, &p->y, &p->x); /* 3 */
    field_add(&sum, &p->y, &p->x);             /* 2 */
    field_multiply(&a, &difference, negate ? &q->sum : &q->difference);
    field_multiply(&b, &sum, negate ? &q->difference : &q->sum);
    field_multiply(&c, &p->t, &q->product);
    field_add(&d, &p->z, &p->z); /* 2 */
    point_finish(out, &a, &b, &c, &d, negate);
}

FIELD_INLINE void point_add(edwards_point *out, const edwards_point *p, const edwards_cached *q,
                            int negate) {
    field a, b, c, d, sum, difference;
    field_subtract(&difference, &p->y, &p->x);
    field_add(&sum, &p->y, &p->x);
    field_multiply(&a, &difference, negate ? &q->sum : &q->difference);
    field_multiply(&b, &sum, negate ? &q->difference : &q->sum);
    field_multiply(&c, &p->t, &q->product);
    field_multiply(&d, &p->z, &q->twice_z);
    point_finish(out, &a, &b, &c, &d, negate);
}

/* All four coordinates come out negated against the paper's, which is the same point and saves a
 * subtraction. T is left alone unless asked for. */
FIELD_INLINE void point_double(edwards_point *out, const edwards_point *p, int with_t) {
    field x2, y2, z2, sum2, e, f, g, h;
    field_square(&x2, &p->x);
    field_square(&y2, &p->y);
    field_square(&z2, &p->z);
    field_add(&sum2, &p->x, &p->y); /* 2 */
    field_square(&sum2, &sum2);
    field_add(&h, &x2, &y2);         /* 2 */
    field_subtract(&e, &h, &sum2);   /* 4 */
    field_subtract(&g, &x2, &y2);    /* 3 */
    field_add(&f, &z2, &z2);         /* 2 */
    field_add(&f, &f, &g);           /* 5 */
    field_multiply(&out->x, &e, &f);
    field_multiply(&out->y, &g, &h);
    field_multiply(&out->z, &f, &g);
    if (with_t) field_multiply(&out->t, &e, &h);
}

FIELD_INLINE void point_cache(edwards_cached *out, const edwards_point *p) {
    field_add(&out->sum, &p->y, &p->x);             /* 2 */
    field_subtract(&out->difference, &p->y, &p->x); /* 3 */
    field_add(&out->twice_z, &p->z, &p->z);         /* 2 */
    field_multiply(&out->product, &p->t, &EDWARDS_2D);
}

#endif
