/* Strict parser of TxBody (transactions.proto) where all operations are transfers.
 *
 * PLAIN is a canonical body, of this chain, with 1 to 256 transfers to receivers of 32 bytes: known
 * fields once and in order, minimal numbers, no default written out. Anything else is OTHER. It reads
 * only inside the bodies. */
#ifndef ASSAY_BODIES_H
#define ASSAY_BODIES_H

#include <stddef.h>
#include <stdint.h>

#include "transactions.h"

#define ASSAY_OPERATIONS_MAX 256u

typedef enum { ASSAY_BODY_OTHER = 0, ASSAY_BODY_PLAIN = 1 } assay_body_class;

/* One entry a body in the first six arrays, one an operation in the last two. */
typedef struct {
    uint8_t *classes;
    uint64_t *valid_until_heights;
    uint64_t *max_fees;
    uint32_t *body_bytes;
    uint32_t *first_operations;
    uint32_t *operation_counts;
    uint32_t *receivers; /* offset in `data` */
    uint64_t *amounts;
} assay_bodies;

/* At most this many operations come out of these bodies. */
size_t assay_bodies_room(const assay_slice *bodies, size_t count);
/* Fills the arrays; the number of operations. The bodies lie inside `data`. */
size_t assay_parse_bodies(const uint8_t *data, const assay_slice *bodies, size_t count,
                          const uint8_t *chain_id, size_t chain_id_length, assay_bodies *out);

#endif
