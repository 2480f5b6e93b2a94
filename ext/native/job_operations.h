/* Strict parser of RequestInference and SubmitResult (transactions.proto, inference.proto).
 *
 * It takes what is canonical and passes every rule that needs no state: read_request and read_result of
 * chain/execution/jobs.py. What it does not take is no verdict: those functions give it. */
#ifndef ASSAY_JOB_OPERATIONS_H
#define ASSAY_JOB_OPERATIONS_H

#include <stddef.h>
#include <stdint.h>

#include "transactions.h"
#include "wire_reader.h"

#define ASSAY_JOB_ID_BYTES 32u

typedef struct {
    uint32_t temperature_milli_max, top_k_max, top_p_milli_max, logprob_ceiling_milli_max;
    uint32_t stop_strings_max, stop_bytes_max, messages_max, text_bytes_max;
    uint32_t tier_max, role_max, finish_reason_max; /* last values of the schema's enumerations */
} assay_job_limits;

/* Offsets count from the start of the payload; 0 is none. */
typedef struct {
    uint32_t subject;    /* the model of a request, the job of a result: 32 bytes */
    assay_slice message; /* the RequestInference, or the InferenceResult, as signed */
    uint8_t digest[32];  /* H("request" or "result", message) */
    uint32_t input_tokens, output_tokens; /* of a request: ids given, and the most to answer */
    /* Of a request. */
    uint32_t input_bytes, tier, answer_within_ms;
    uint32_t provider, seed; /* 32 bytes each */
    uint64_t max_price;
    /* Of a result. */
    assay_slice engine_profile;
} assay_job_operation;

/* Both take the whole of `message`, or return 0. */
int assay_read_request(assay_reader message, const assay_job_limits *limits,
                       assay_job_operation *out);
int assay_read_result(assay_reader message, const assay_job_limits *limits,
                      assay_job_operation *out);

/* H("job", transaction id, place of the operation): what names the job that a request opens. */
void assay_job_id(const uint8_t transaction[32], uint32_t operation, uint8_t job[32]);

#endif
