/* Strict parser of the protobuf wire format of BatchPayload and SignedTx (transactions.proto).
 *
 * It accepts exactly the bytes that a canonical serialiser writes: fields once and in order, minimal
 * lengths, nothing unknown. So equal content means equal bytes, and nobody can change a payload's digest
 * without changing what it says. It reads only inside [data, data + length). */
#ifndef ASSAY_TRANSACTIONS_H
#define ASSAY_TRANSACTIONS_H

#include <stddef.h>
#include <stdint.h>

#define ASSAY_PAYLOAD_BYTES_MAX 0x7fffffffu
#define ASSAY_BODY_BYTES_MAX 131072u
#define ASSAY_ATTESTATION_BYTES_MAX 131072u
#define ASSAY_TRANSACTIONS_MAX 65536u
#define ASSAY_ATTESTATIONS_MAX 65536u
#define ASSAY_PUBLIC_KEY_BYTES 32u
#define ASSAY_SIGNATURE_BYTES 64u

/* The order is that of ParseReason in transactions.pyx. */
typedef enum {
    ASSAY_PARSE_OK = 0,
    ASSAY_PARSE_PAYLOAD_TOO_LONG,
    ASSAY_PARSE_TRUNCATED,
    ASSAY_PARSE_UNEXPECTED_FIELD,
    ASSAY_PARSE_LENGTH_NOT_MINIMAL,
    ASSAY_PARSE_LENGTH_TOO_LARGE,
    ASSAY_PARSE_BODY_SIZE,
    ASSAY_PARSE_PUBLIC_KEY_SIZE,
    ASSAY_PARSE_SIGNATURE_SIZE,
    ASSAY_PARSE_ATTESTATION_SIZE,
    ASSAY_PARSE_TRAILING_BYTES,
    ASSAY_PARSE_TOO_MANY_TRANSACTIONS,
    ASSAY_PARSE_TOO_MANY_ATTESTATIONS,
} assay_parse_status;

typedef struct {
    uint32_t offset;
    uint32_t length;
} assay_slice;

/* Offsets count from the start of the buffer the transaction was found in. */
typedef struct {
    assay_slice body;
    uint32_t public_key;
    uint32_t signature;
} assay_signed_tx;

/* On failure `*failed_at` is the offset of the first byte that is wrong or missing. */
assay_parse_status assay_parse_signed_tx(const uint8_t *data, size_t start, size_t end,
                                         assay_signed_tx *out, size_t *failed_at);

/* Walks the outer fields only: how much room assay_parse_batch needs. */
assay_parse_status assay_count_batch(const uint8_t *data, size_t length, size_t *transactions,
                                     size_t *attestations, size_t *failed_at);

/* Fills arrays of the sizes that assay_count_batch gave for the same bytes: bodies, public keys
 * (32 bytes each), signatures (64), ids (32) and attestations. */
assay_parse_status assay_parse_batch(const uint8_t *data, size_t length, assay_slice *bodies,
                                     uint8_t *public_keys, uint8_t *signatures, uint8_t *ids,
                                     assay_slice *attestations, size_t *failed_at);

/* H("tx", body, public key): what names a transaction. */
void assay_transaction_id(const uint8_t *body, size_t length, const uint8_t *public_key,
                          uint8_t id[32]);
/* H("tx-sign", chain id, body): what its signature covers. */
void assay_signing_digest(const uint8_t *chain_id, size_t chain_id_length, const uint8_t *body,
                          size_t length, uint8_t digest[32]);

#endif
