#include "transfers.h"

#include <string.h>

#include "little_endian.h"

enum {
    ID_BYTES = 32,
    TRANSFERRED = 1, /* EventKind */
    EVENT_BYTES = 1 + 1 + 32 + 1 + 32 + 8 + 1,
    RECEIPT_BYTES = 1 + ID_BYTES + 1 + 4 + 8, /* and the reason */
    /* Transactions, and operations of theirs, whose memory is fetched ahead. */
    GROUP = 32,
    GROUP_OPERATIONS = 128,
};

__extension__ typedef unsigned __int128 u128;

/* Names of RejectionReason, by assay_refusal. */
static const char *const REASONS[] = {
    NULL, "EXPIRED", "TOO_FAR_AHEAD", "REPLAYED", "FEE_TOO_LOW", "INSUFFICIENT_BALANCE",
    "AMOUNT_ZERO", "STATE_FULL",
};

/* What the rules say of a transaction. */
typedef struct {
    assay_refusal_facts facts;
    int charged; /* whether it pays its fee, refused or not */
    uint64_t fee;
    uint32_t sender; /* row */
} verdict;

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
    store_le64(out, word);
    return out + 8;
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
    store_le32(out, (uint32_t)length);
    out += 4;
    if (length > 0) out = put_bytes(out, reason, length);
    put_le64(out, fee);
}

/* Event.leaf(): tag, kind, subject, other behind its flag, amount, code. Room is reserved. */
static void put_event(assay_leaves *events, uint8_t kind, const uint8_t *subject,
                      const uint8_t *other, uint64_t amount, uint8_t code) {
    uint8_t *out = assay_leaves_open(events, other == NULL ? EVENT_BYTES - ASSAY_KEY_BYTES
                                                           : EVENT_BYTES);
    *out++ = 'E';
    *out++ = kind;
    out = put_bytes(out, subject, ASSAY_KEY_BYTES);
    *out++ = other != NULL;
    if (other != NULL) out = put_bytes(out, other, ASSAY_KEY_BYTES);
    out = put_le64(out, amount);
    *out = code;
}

assay_leaves_status assay_add_event(assay_leaves *events, uint8_t kind, const uint8_t subject[32],
                                    const uint8_t *other, uint64_t amount, uint8_t code) {
    assay_leaves_status status = assay_leaves_reserve(events, 1, EVENT_BYTES);
    if (status == ASSAY_LEAVES_OK) put_event(events, kind, subject, other, amount, code);
    return status;
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

static uint64_t burned_of(const run *run, uint64_t fee) {
    const uint64_t share = run->rules->fee_burn_bps;
    /* In two parts, because the product may not fit 64 bits. */
    return fee / ASSAY_BASIS_POINTS * share + fee % ASSAY_BASIS_POINTS * share / ASSAY_BASIS_POINTS;
}

static assay_run_status charge(run *run, uint32_t sender, uint64_t fee) {
    uint64_t burned = burned_of(run, fee);
    uint64_t burned_before = run->output->burned;
    debit(run, sender, fee);
    if (__builtin_add_overflow(burned_before, burned, &run->output->burned)) {
        run->output->burned = burned_before;
        return ASSAY_RUN_OVERFLOW;
    }
    assay_run_status status = credit(run, run->lane_owner, run->lane_owner_hash, fee - burned);
    if (status != ASSAY_RUN_OK) run->output->burned = burned_before;
    return status;
}

/* All operations of a transaction that was not refused. */
static assay_run_status transfer_all(run *run, size_t index, uint32_t sender,
                                     const uint32_t *receiver_hashes) {
    const assay_bodies *bodies = run->batch->bodies;
    const uint8_t *sender_key = run->batch->public_keys + ASSAY_KEY_BYTES * index;
    const size_t first = bodies->first_operations[index];
    for (size_t i = 0; i < bodies->operation_counts[index]; i++) {
        const uint8_t *receiver = run->batch->payload + bodies->receivers[first + i];
        uint64_t amount = bodies->amounts[first + i];
        debit(run, sender, amount);
        assay_run_status status = credit(run, receiver, receiver_hashes[i], amount);
        if (status != ASSAY_RUN_OK) return status;
        put_event(&run->output->events, TRANSFERRED, sender_key, receiver, amount, 0);
    }
    return ASSAY_RUN_OK;
}

static assay_run_status run_status_of(assay_leaves_status status) {
    if (status == ASSAY_LEAVES_OK) return ASSAY_RUN_OK;
    return status == ASSAY_LEAVES_TOO_LONG ? ASSAY_RUN_LEAVES_TOO_LONG : ASSAY_RUN_NO_MEMORY;
}

static assay_run_status reserve_receipt(run *run) {
    assay_run_status status = run_status_of(assay_leaves_reserve(
        &run->output->receipts, 1, RECEIPT_BYTES + ASSAY_REASON_BYTES_MAX));
    if (status != ASSAY_RUN_OK) return status;
    switch (assay_window_reserve(run->window, 1)) {
    case ASSAY_LEDGER_OK:
        return ASSAY_RUN_OK;
    case ASSAY_LEDGER_FULL:
        return ASSAY_RUN_FULL;
    default:
        return ASSAY_RUN_NO_MEMORY;
    }
}

static assay_run_status reserve(run *run, size_t operations) {
    assay_run_status status = reserve_receipt(run);
    if (status != ASSAY_RUN_OK) return status;
    status = run_status_of(assay_leaves_reserve(&run->output->events, operations,
                                                (size_t)EVENT_BYTES * operations));
    if (status != ASSAY_RUN_OK) return status;
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

static assay_refusal_facts refuse(assay_refusal refusal, uint64_t seen, u128 bound) {
    assay_refusal_facts facts = {refusal, seen, bound > UINT64_MAX ? UINT64_MAX : (uint64_t)bound};
    return facts;
}

/* The operations in order, by what they leave of the sender's balance. */
static assay_refusal_facts judge_operations(const run *run, size_t index, uint64_t balance) {
    const assay_bodies *bodies = run->batch->bodies;
    const uint8_t *sender = run->batch->public_keys + ASSAY_KEY_BYTES * index;
    const size_t first = bodies->first_operations[index];
    for (size_t i = 0; i < bodies->operation_counts[index]; i++) {
        const uint8_t *receiver = run->batch->payload + bodies->receivers[first + i];
        uint64_t amount = bodies->amounts[first + i];
        if (amount == 0) return refuse(ASSAY_REFUSAL_AMOUNT_ZERO, 0, 0);
        if (balance < amount) return refuse(ASSAY_REFUSAL_INSUFFICIENT_BALANCE, balance, amount);
        if (memcmp(receiver, sender, ASSAY_KEY_BYTES) != 0) balance -= amount;
    }
    return refuse(ASSAY_REFUSAL_NONE, 0, 0);
}

/* Whether an operation of the transaction before this one has the same receiver. */
static int names_before(const run *run, const uint8_t *key, size_t first, size_t operation) {
    for (size_t i = first; i < operation; i++)
        if (memcmp(run->batch->payload + run->batch->bodies->receivers[i], key,
                   ASSAY_KEY_BYTES) == 0)
            return 1;
    return 0;
}

/* Whether operations that nothing else refuses make no account beyond the most there may be: those that
 * make none are never refused for it. `earned` is the lane owner's part of the fee. */
static assay_refusal_facts judge_rows(const run *run, size_t index, uint64_t earned) {
    const assay_bodies *bodies = run->batch->bodies;
    const assay_accounts *accounts = run->accounts;
    const uint64_t rows_max = run->rules->accounts_max;
    const size_t first = bodies->first_operations[index];
    uint64_t rows = accounts->count;
    if (rows + 1 + bodies->operation_counts[index] <= rows_max)
        return refuse(ASSAY_REFUSAL_NONE, 0, 0);
    const int owner_is_new =
        earned > 0 && assay_accounts_find(accounts, run->lane_owner,
                                          assay_key_hash(&accounts->index, run->lane_owner)) ==
                          ASSAY_NO_ROW;
    rows += (uint64_t)owner_is_new;
    for (size_t i = first; i < first + bodies->operation_counts[index]; i++) {
        const uint8_t *receiver = run->batch->payload + bodies->receivers[i];
        if (assay_accounts_find(accounts, receiver, assay_key_hash(&accounts->index, receiver)) !=
            ASSAY_NO_ROW)
            continue;
        if (owner_is_new && memcmp(receiver, run->lane_owner, ASSAY_KEY_BYTES) == 0) continue;
        if (names_before(run, receiver, first, i)) continue;
        if (rows >= rows_max) return refuse(ASSAY_REFUSAL_STATE_FULL, rows, rows_max);
        rows++;
    }
    return refuse(ASSAY_REFUSAL_NONE, 0, 0);
}

/* Every rule but the operations', in the order of chain/execution/block.py; what the fee leaves the
 * sender. Changes nothing. */
static verdict judge_envelope(const run *run, size_t index, uint32_t id_hash, uint32_t sender_hash,
                              uint64_t *left) {
    const uint8_t *key = run->batch->public_keys + ASSAY_KEY_BYTES * index;
    const uint64_t height = run->rules->height, window_blocks = run->rules->window_blocks;
    const uint64_t last = run->batch->bodies->valid_until_heights[index];
    const uint64_t max_fee = run->batch->bodies->max_fees[index];
    const u128 fee = fee_of(run, index);
    verdict verdict = {refuse(ASSAY_REFUSAL_NONE, 0, 0), 0, 0, ASSAY_NO_ROW};
    if (last < height) {
        verdict.facts = refuse(ASSAY_REFUSAL_EXPIRED, last, height);
        return verdict;
    }
    if (last - height > window_blocks) {
        verdict.facts = refuse(ASSAY_REFUSAL_TOO_FAR_AHEAD, last, (u128)height + window_blocks);
        return verdict;
    }
    if (assay_window_find(run->window, run->batch->ids + ID_BYTES * index, id_hash) !=
        ASSAY_NO_ROW) {
        verdict.facts = refuse(ASSAY_REFUSAL_REPLAYED, 0, 0);
        return verdict;
    }
    if (max_fee < fee) {
        verdict.facts = refuse(ASSAY_REFUSAL_FEE_TOO_LOW, max_fee, fee);
        return verdict;
    }
    verdict.sender = assay_accounts_find(run->accounts, key, sender_hash);
    verdict.fee = (uint64_t)fee;
    uint64_t balance = balance_of(run, verdict.sender);
    if (balance < verdict.fee) {
        verdict.facts = refuse(ASSAY_REFUSAL_INSUFFICIENT_BALANCE, balance, verdict.fee);
        return verdict;
    }
    verdict.charged = 1;
    balance -= verdict.fee;
    if (memcmp(key, run->lane_owner, ASSAY_KEY_BYTES) == 0)
        balance += verdict.fee - burned_of(run, verdict.fee);
    *left = balance;
    return verdict;
}

/* Every rule of a plain transaction. Changes nothing. */
static verdict judge(const run *run, size_t index, uint32_t id_hash, uint32_t sender_hash) {
    uint64_t left = 0;
    verdict verdict = judge_envelope(run, index, id_hash, sender_hash, &left);
    if (verdict.charged) verdict.facts = judge_operations(run, index, left);
    if (verdict.charged && verdict.facts.refusal == ASSAY_REFUSAL_NONE)
        verdict.facts = judge_rows(run, index, verdict.fee - burned_of(run, verdict.fee));
    return verdict;
}

static assay_run_status include(run *run, size_t index, uint32_t id_hash, uint32_t sender_hash,
                                const uint32_t *receiver_hashes) {
    const uint8_t *id = run->batch->ids + ID_BYTES * index;
    const verdict verdict = judge(run, index, id_hash, sender_hash);
    const char *reason = REASONS[verdict.facts.refusal];
    if (verdict.facts.refusal == ASSAY_REFUSAL_REPLAYED)
        return ASSAY_RUN_OK; /* who sends through two lanes has the receipt of the first */
    assay_run_status status = reserve(run, run->batch->bodies->operation_counts[index]);
    if (status != ASSAY_RUN_OK) return status;
    if (!verdict.charged) {
        add_receipt(run, id, reason, 0);
        return ASSAY_RUN_OK;
    }
    const size_t start = run->accounts->undo.count, events = run->output->events.count;
    const uint64_t burned = run->output->burned;
    status = charge(run, verdict.sender, verdict.fee);
    if (status == ASSAY_RUN_OK && reason == NULL)
        status = transfer_all(run, index, verdict.sender, receiver_hashes);
    if (status != ASSAY_RUN_OK) {
        assay_accounts_rollback(run->accounts, start);
        assay_leaves_truncate(&run->output->events, events);
        run->output->burned = burned;
        return status;
    }
    assay_window_add(run->window, id, id_hash, run->rules->height,
                     (uint32_t)run->output->receipts.count);
    add_receipt(run, id, reason, verdict.fee);
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

assay_run_status assay_charge_envelope(assay_accounts *accounts, assay_window *window,
                                       const assay_run_batch *batch,
                                       const assay_transfer_rules *rules,
                                       const uint8_t *lane_owner, assay_run_output *output,
                                       size_t index, int *charged, uint64_t *fee) {
    run run = {accounts, window, batch, rules, lane_owner,
               assay_key_hash(&accounts->index, lane_owner), output};
    const uint8_t *id = batch->ids + ID_BYTES * index;
    uint64_t left;
    const verdict verdict = judge_envelope(
        &run, index, assay_key_hash(&window->index, id),
        assay_key_hash(&accounts->index, batch->public_keys + ASSAY_KEY_BYTES * index), &left);
    *charged = verdict.charged;
    *fee = verdict.fee;
    if (verdict.facts.refusal == ASSAY_REFUSAL_REPLAYED) return ASSAY_RUN_OK;
    assay_run_status status = reserve(&run, 0);
    if (status != ASSAY_RUN_OK) return status;
    if (!verdict.charged) {
        add_receipt(&run, id, REASONS[verdict.facts.refusal], 0);
        return ASSAY_RUN_OK;
    }
    const size_t start = accounts->undo.count;
    status = charge(&run, verdict.sender, verdict.fee);
    if (status != ASSAY_RUN_OK) assay_accounts_rollback(accounts, start);
    return status;
}

assay_run_status assay_conclude_envelope(assay_window *window, const assay_run_batch *batch,
                                         const assay_transfer_rules *rules,
                                         assay_run_output *output, size_t index,
                                         const char *reason, uint64_t fee) {
    run run = {NULL, window, batch, rules, NULL, 0, output};
    const uint8_t *id = batch->ids + ID_BYTES * index;
    assay_run_status status = reserve_receipt(&run);
    if (status != ASSAY_RUN_OK) return status;
    assay_window_add(window, id, assay_key_hash(&window->index, id), rules->height,
                     (uint32_t)output->receipts.count);
    add_receipt(&run, id, reason, fee);
    return ASSAY_RUN_OK;
}

void assay_check_transfers(assay_accounts *accounts, assay_window *window,
                           const assay_run_batch *batch, const assay_transfer_rules *rules,
                           const uint8_t *lane_owner, size_t count, uint8_t *refusals,
                           uint64_t *seen, uint64_t *bounds) {
    const run run = {accounts, window, batch, rules, lane_owner, 0, NULL};
    group_hashes hashes;
    for (size_t start = 0, end; start < count; start = end) {
        end = prepare_group(&run, start, count, &hashes);
        for (size_t index = start; index < end; index++) {
            const size_t place = index - start;
            const assay_refusal_facts facts =
                judge(&run, index, hashes.ids[place], hashes.senders[place]).facts;
            refusals[index] = (uint8_t)facts.refusal;
            seen[index] = facts.seen;
            bounds[index] = facts.bound;
        }
        if (end == start) { /* not plain */
            refusals[end] = ASSAY_REFUSAL_NONE;
            seen[end] = bounds[end] = 0;
            end++;
        }
    }
}
