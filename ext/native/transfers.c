#include "transfers.h"

#include <string.h>

enum {
    ID_BYTES = 32,
    TRANSFERRED = 1, /* EventKind */
    EVENT_BYTES = 1 + 1 + 32 + 1 + 32 + 8 + 1,
    RECEIPT_BYTES = 1 + ID_BYTES + 1 + 4 + 8, /* and the reason */
    REASON_BYTES_MAX = 64,
    /* Transactions, and operations of theirs, whose memory is fetched ahead. */
    GROUP = 32,
    GROUP_OPERATIONS = 128,
};

__extension__ typedef unsigned __int128 u128;

/* Names of RejectionReason. */
static const char EXPIRED[] = "EXPIRED";
static const char TOO_FAR_AHEAD[] = "TOO_FAR_AHEAD";
static const char FEE_TOO_LOW[] = "FEE_TOO_LOW";
static const char INSUFFICIENT_BALANCE[] = "INSUFFICIENT_BALANCE";
static const char AMOUNT_ZERO[] = "AMOUNT_ZERO";

typedef struct {
    assay_accounts *accounts;
    assay_window *window;
    const assay_run_batch *batch;
    const assay_transfer_rules *rules;
    const uint8_t *lane_owner;
    uint32_t lane_owner_hash;
    assay_run_output *output;
} run;

/* Hashes of a group's keys, made ahead so that their memory can be fetched. */
typedef struct {
    uint32_t ids[GROUP], senders[GROUP];
    uint32_t receivers[GROUP_OPERATIONS + ASSAY_OPERATIONS_MAX];
} group_hashes;

static uint8_t *put_le64(uint8_t *out, uint64_t word) {
    for (int i = 0; i < 8; i++) *out++ = (uint8_t)(word >> 8 * i);
    return out;
}

static uint8_t *put_bytes(uint8_t *out, const void *bytes, size_t length) {
    memcpy(out, bytes, length);
    return out + length;
}

/* TransactionReceipt.leaf(): tag, id, accepted, reason behind its length, fee. */
static void add_receipt(run *run, const uint8_t *id, const char *reason, uint64_t fee) {
    size_t length = reason == NULL ? 0 : strlen(reason);
    uint8_t *out = assay_leaves_open(&run->output->receipts, RECEIPT_BYTES + length);
    *out++ = 'T';
    out = put_bytes(out, id, ID_BYTES);
    *out++ = reason == NULL;
    *out++ = (uint8_t)length; /* below 256 */
    *out++ = 0;
    *out++ = 0;
    *out++ = 0;
    if (length > 0) out = put_bytes(out, reason, length);
    put_le64(out, fee);
}

/* Event.leaf(): tag, kind, subject, other behind its flag, amount, code. */
static void add_transferred(run *run, const uint8_t *sender, const uint8_t *receiver,
                            uint64_t amount) {
    uint8_t *out = assay_leaves_open(&run->output->events, EVENT_BYTES);
    *out++ = 'E';
    *out++ = TRANSFERRED;
    out = put_bytes(out, sender, ASSAY_KEY_BYTES);
    *out++ = 1;
    out = put_bytes(out, receiver, ASSAY_KEY_BYTES);
    out = put_le64(out, amount);
    *out = 0;
}

static uint64_t balance_of(const run *run, uint32_t row) {
    return row == ASSAY_NO_ROW ? 0 : run->accounts->rows[row].amounts.balance;
}

/* Takes what the balance is known to hold. */
static void debit(run *run, uint32_t row, uint64_t amount) {
    if (row == ASSAY_NO_ROW) return; /* then the amount is 0 */
    assay_amounts amounts = run->accounts->rows[row].amounts;
    amounts.balance -= amount;
    assay_accounts_set(run->accounts, row, &amounts);
}

static assay_run_status credit(run *run, const uint8_t *key, uint32_t hash, uint64_t amount) {
    if (amount == 0) return ASSAY_RUN_OK;
    uint32_t row = assay_accounts_find(run->accounts, key, hash);
    if (row == ASSAY_NO_ROW) {
        assay_amounts amounts = {amount, 0, 0, 0};
        row = assay_accounts_create(run->accounts, key, hash, &amounts);
        return row == ASSAY_NO_ROW ? ASSAY_RUN_FULL : ASSAY_RUN_OK;
    }
    assay_amounts amounts = run->accounts->rows[row].amounts;
    if (__builtin_add_overflow(amounts.balance, amount, &amounts.balance))
        return ASSAY_RUN_OVERFLOW;
    assay_accounts_set(run->accounts, row, &amounts);
    return ASSAY_RUN_OK;
}

static assay_run_status charge(run *run, uint32_t sender, uint64_t fee) {
    uint64_t burned = (uint64_t)((u128)fee * run->rules->fee_burn_bps / ASSAY_BASIS_POINTS);
    uint64_t burned_before = run->output->burned;
    debit(run, sender, fee);
    if (__builtin_add_overflow(burned_before, burned, &run->output->burned)) {
        run->output->burned = burned_before;
        return ASSAY_RUN_OVERFLOW;
    }
    return credit(run, run->lane_owner, run->lane_owner_hash, fee - burned);
}

/* All operations in order, up to the one that `*reason` is about. */
static assay_run_status transfer_all(run *run, size_t index, uint32_t sender,
                                     const uint32_t *receiver_hashes, const char **reason) {
    const assay_bodies *bodies = run->batch->bodies;
    const uint8_t *sender_key = run->batch->public_keys + ASSAY_KEY_BYTES * index;
    const size_t first = bodies->first_operations[index];
    for (size_t i = 0; i < bodies->operation_counts[index]; i++) {
        const uint8_t *receiver = run->batch->payload + bodies->receivers[first + i];
        uint64_t amount = bodies->amounts[first + i];
        *reason = amount == 0                          ? AMOUNT_ZERO
                  : balance_of(run, sender) < amount ? INSUFFICIENT_BALANCE
                                                       : NULL;
        if (*reason != NULL) return ASSAY_RUN_OK;
        debit(run, sender, amount);
        assay_run_status status = credit(run, receiver, receiver_hashes[i], amount);
        if (status != ASSAY_RUN_OK) return status;
        add_transferred(run, sender_key, receiver, amount);
    }
    return ASSAY_RUN_OK;
}

static assay_run_status reserve(run *run, size_t operations) {
    assay_leaves_status receipts = assay_leaves_reserve(&run->output->receipts, 1,
                                                        RECEIPT_BYTES + REASON_BYTES_MAX);
    assay_leaves_status events = assay_leaves_reserve(&run->output->events, operations,
                                                      (size_t)EVENT_BYTES * operations);
    if (receipts == ASSAY_LEAVES_TOO_LONG || events == ASSAY_LEAVES_TOO_LONG)
        return ASSAY_RUN_LEAVES_TOO_LONG;
    if (receipts != ASSAY_LEAVES_OK || events != ASSAY_LEAVES_OK) return ASSAY_RUN_NO_MEMORY;
    switch (assay_window_reserve(run->window, 1)) {
    case ASSAY_LEDGER_OK:
        break;
    case ASSAY_LEDGER_FULL:
        return ASSAY_RUN_FULL;
    default:
        return ASSAY_RUN_NO_MEMORY;
    }
    /* The fee and each operation change two accounts and may make one. */
    if (assay_accounts_reserve(run->accounts, 2 + 2 * operations, 1 + operations) !=
        ASSAY_LEDGER_OK)
        return ASSAY_RUN_NO_MEMORY;
    return ASSAY_RUN_OK;
}

/* The fee in full, which may not fit 64 bits. */
static u128 fee_of(const run *run, size_t index) {
    const assay_bodies *bodies = run->batch->bodies;
    return (u128)run->rules->fee_per_transaction +
           (u128)run->rules->fee_per_operation * bodies->operation_counts[index] +
           (u128)run->rules->fee_per_byte * bodies->body_bytes[index];
}

/* Why the envelope is refused, or NULL; replays are found before. */
static const char *check_height(const run *run, size_t index) {
    uint64_t last = run->batch->bodies->valid_until_heights[index];
    if (last < run->rules->height) return EXPIRED;
    if (last - run->rules->height > run->rules->window_blocks) return TOO_FAR_AHEAD;
    return NULL;
}

static assay_run_status include(run *run, size_t index, uint32_t id_hash, uint32_t sender_hash,
                                const uint32_t *receiver_hashes) {
    const uint8_t *id = run->batch->ids + ID_BYTES * index;
    const uint8_t *key = run->batch->public_keys + ASSAY_KEY_BYTES * index;
    const char *reason = check_height(run, index);
    assay_run_status status = reserve(run, run->batch->bodies->operation_counts[index]);
    if (status != ASSAY_RUN_OK) return status;
    if (reason == NULL && assay_window_find(run->window, id, id_hash) != ASSAY_NO_ROW)
        return ASSAY_RUN_OK; /* who sends through two lanes has the receipt of the first */
    const u128 fee = fee_of(run, index);
    const uint32_t sender = assay_accounts_find(run->accounts, key, sender_hash);
    if (reason == NULL && run->batch->bodies->max_fees[index] < fee) reason = FEE_TOO_LOW;
    if (reason == NULL && balance_of(run, sender) < fee) reason = INSUFFICIENT_BALANCE;
    if (reason != NULL) {
        add_receipt(run, id, reason, 0);
        return ASSAY_RUN_OK;
    }
    const size_t start = run->accounts->undo.count, events = run->output->events.count;
    const uint64_t burned = run->output->burned;
    status = charge(run, sender, (uint64_t)fee);
    const size_t savepoint = run->accounts->undo.count;
    if (status == ASSAY_RUN_OK) status = transfer_all(run, index, sender, receiver_hashes, &reason);
    if (status != ASSAY_RUN_OK || reason != NULL) {
        assay_accounts_rollback(run->accounts, status == ASSAY_RUN_OK ? savepoint : start);
        assay_leaves_truncate(&run->output->events, events);
    }
    if (status != ASSAY_RUN_OK) {
        run->output->burned = burned;
        return status;
    }
    assay_window_add(run->window, id, id_hash, run->rules->height,
                     (uint32_t)run->output->receipts.count);
    add_receipt(run, id, reason, (uint64_t)fee);
    return ASSAY_RUN_OK;
}

static void prefetch_row(const run *run, uint32_t hash) {
    uint32_t row = assay_key_index_guess(&run->accounts->index, hash);
    if (row != ASSAY_NO_ROW) __builtin_prefetch(&run->accounts->rows[row], 1);
}

/* Hashes the keys of plain transactions from `start` on, and fetches the memory they lead to: the
 * index first, the rows behind it in a second pass. Returns the end of the group. */
static size_t prepare_group(const run *run, size_t start, size_t stop, group_hashes *hashes) {
    const assay_bodies *bodies = run->batch->bodies;
    size_t end = start, operations = 0;
    for (; end < stop && end - start < GROUP && operations < GROUP_OPERATIONS; end++) {
        if (bodies->classes[end] != ASSAY_BODY_PLAIN) break;
        size_t place = end - start, first = bodies->first_operations[end];
        hashes->ids[place] = assay_key_hash(&run->window->index, run->batch->ids + ID_BYTES * end);
        hashes->senders[place] = assay_key_hash(
            &run->accounts->index, run->batch->public_keys + ASSAY_KEY_BYTES * end);
        assay_key_index_prefetch(&run->window->index, hashes->ids[place]);
        assay_key_index_prefetch(&run->accounts->index, hashes->senders[place]);
        for (size_t i = 0; i < bodies->operation_counts[end]; i++, operations++) {
            hashes->receivers[operations] = assay_key_hash(
                &run->accounts->index, run->batch->payload + bodies->receivers[first + i]);
            assay_key_index_prefetch(&run->accounts->index, hashes->receivers[operations]);
        }
    }
    for (size_t place = 0; place < end - start; place++) prefetch_row(run, hashes->senders[place]);
    for (size_t i = 0; i < operations; i++) prefetch_row(run, hashes->receivers[i]);
    return end;
}

assay_run_status assay_run_transfers(assay_accounts *accounts, assay_window *window,
                                     const assay_run_batch *batch,
                                     const assay_transfer_rules *rules, const uint8_t *lane_owner,
                                     assay_run_output *output, size_t *position, size_t stop) {
    run run = {accounts, window, batch, rules, lane_owner,
               assay_key_hash(&accounts->index, lane_owner), output};
    group_hashes hashes;
    while (*position < stop) {
        const size_t start = *position, end = prepare_group(&run, start, stop, &hashes);
        const uint32_t *receivers = hashes.receivers;
        if (end == start) break; /* not plain */
        for (; *position < end; ++*position) {
            const size_t place = *position - start;
            assay_run_status status =
                include(&run, *position, hashes.ids[place], hashes.senders[place], receivers);
            if (status != ASSAY_RUN_OK) return status;
            receivers += batch->bodies->operation_counts[*position];
        }
    }
    return ASSAY_RUN_OK;
}
