/* Strict parser of TxBody (transactions.proto) where all operations are transfers, or the only one
 * belongs to a job.
 *
 * Taken are canonical bodies of this chain: known fields once and in order, minimal numbers, no default
 * written out. PLAIN has 1 to 256 transfers to receivers of 32 bytes, REQUEST and RESULT have one
 * operation that job_operations.h takes. Anything else is OTHER. It reads only inside the bodies. */
#ifndef ASSAY_BODIES_H
#define ASSAY_BODIES_H

#include <stddef.h>
#include <stdint.h>

#include "job_operations.h"
#include "transactions.h"

#define ASSAY_OPERATIONS_MAX 256u

/* The order is that of the constants in bodies.pyx. */
typedef enum {
    ASSAY_BODY_OTHER = 0,
    ASSAY_BODY_PLAIN,
    ASSAY_BODY_REQUEST,
    ASSAY_BODY_RESULT,
} assay_body_class;

/* One entry a body in the first six arrays, one a transfer in the next two, and one an operation of a
 * job in the last, which grows. `first_operations` is a place in the one or the other. */
typedef struct {
    uint8_t *classes;
    uint64_t *valid_until_heights;
    uint64_t *max_fees;
    uint32_t *body_bytes;
    uint32_t *first_operations;
    uint32_t *operation_counts;
    uint32_t *receivers; /* offset in `data` */
    uint64_t *amounts;
    assay_job_operation *job_operations;
    size_t job_operation_count, job_operation_capacity;
} assay_bodies;

/* At most this many transfers come out of these bodies. */
size_t assay_bodies_room(const assay_slice *bodies, size_t count);
/* Fills the arrays and counts the transfers. The bodies lie inside `data`. Operations of jobs are OTHER
 * when `limits` is NULL. 0 when there is no memory. */
int assay_parse_bodies(const uint8_t *data, const assay_slice *bodies, size_t count,
                       const uint8_t *chain_id, size_t chain_id_length,
                       const assay_job_limits *limits, assay_bodies *out, size_t *transfers);
void assay_bodies_free(assay_bodies *bodies);

#endif
