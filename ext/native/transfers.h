/* Runs of plain transfers over the account table and the window of ids, and the envelopes of other
 * transactions.
 *
 * The rules, their order and the leaves are those of chain/execution/block.py and transfers.py. A
 * transaction's room is reserved before its first change, so it is executed whole or not at all. */
#ifndef ASSAY_TRANSFERS_H
#define ASSAY_TRANSFERS_H

#include <stddef.h>
#include <stdint.h>

#include "accounts.h"
#include "bodies.h"
#include "leaves.h"
#include "window.h"

#define ASSAY_BASIS_POINTS 10000u
#define ASSAY_REASON_BYTES_MAX 64u

typedef struct {
    uint64_t height;
    uint64_t fee_per_transaction, fee_per_operation, fee_per_byte;
    uint32_t window_blocks;
    uint32_t fee_burn_bps; /* at most ASSAY_BASIS_POINTS */
    uint64_t accounts_max; /* no operations may make an account beyond */
} assay_transfer_rules;

typedef struct {
    assay_leaves receipts, events;
    uint64_t burned;
} assay_run_output;

/* The order is that of the branches of run() in transfers.pyx. */
typedef enum {
    ASSAY_RUN_OK = 0,
    ASSAY_RUN_NO_MEMORY,
    ASSAY_RUN_FULL,
    ASSAY_RUN_OVERFLOW,
    ASSAY_RUN_LEAVES_TOO_LONG,
} assay_run_status;

/* Why a transaction is refused. The order is that of the constants in transfers.pyx. */
typedef enum {
    ASSAY_REFUSAL_NONE = 0,
    ASSAY_REFUSAL_EXPIRED,
    ASSAY_REFUSAL_TOO_FAR_AHEAD,
    ASSAY_REFUSAL_REPLAYED,
    ASSAY_REFUSAL_FEE_TOO_LOW,
    ASSAY_REFUSAL_INSUFFICIENT_BALANCE,
    ASSAY_REFUSAL_AMOUNT_ZERO,
    ASSAY_REFUSAL_STATE_FULL,
} assay_refusal;

/* What was seen and what would have been allowed, where there are such numbers: heights, fees, a
 * balance and what it had to hold, or rows. A bound above 64 bits is the largest. */
typedef struct {
    assay_refusal refusal;
    uint64_t seen, bound;
} assay_refusal_facts;

typedef struct {
    const uint8_t *payload;
    const uint8_t *public_keys; /* 32 bytes a transaction */
    const uint8_t *ids;         /* 32 bytes a transaction */
    const assay_bodies *bodies;
} assay_run_batch;

/* Adds Event.leaf(); `other` may be NULL. */
assay_leaves_status assay_add_event(assay_leaves *events, uint8_t kind, const uint8_t subject[32],
                                    const uint8_t *other, uint64_t amount, uint8_t code);

/* Executes transactions from `*position` on, to the first that is not plain or to `stop`, and leaves
 * `*position` there; on failure at the one that left nothing. The window accepts the height. */
assay_run_status assay_run_transfers(assay_accounts *accounts, assay_window *window,
                                     const assay_run_batch *batch,
                                     const assay_transfer_rules *rules, const uint8_t *lane_owner,
                                     assay_run_output *output, size_t *position, size_t stop);

/* The envelope of one transaction, whatever its operations: takes its fee, or says why not in a receipt
 * (none for what is replayed). `*charged` tells which. The window accepts the height. */
assay_run_status assay_charge_envelope(assay_accounts *accounts, assay_window *window,
                                       const assay_run_batch *batch,
                                       const assay_transfer_rules *rules,
                                       const uint8_t *lane_owner, assay_run_output *output,
                                       size_t index, int *charged, uint64_t *fee);
/* Its end, once its operations are done or undone: the receipt, with a reason (NULL if it was accepted)
 * of at most ASSAY_REASON_BYTES_MAX bytes, and its id in the window. */
assay_run_status assay_conclude_envelope(assay_window *window, const assay_run_batch *batch,
                                         const assay_transfer_rules *rules,
                                         assay_run_output *output, size_t index,
                                         const char *reason, uint64_t fee);

/* What a run would say of each transaction if it were the first of its block, without changing anything:
 * three arrays with an entry for each. One that is not plain is not judged. */
void assay_check_transfers(assay_accounts *accounts, assay_window *window,
                           const assay_run_batch *batch, const assay_transfer_rules *rules,
                           const uint8_t *lane_owner, size_t count, uint8_t *refusals,
                           uint64_t *seen, uint64_t *bounds);

#endif
