#!/usr/bin/env bash
# A gateway by hand: ask, find the job in the headers, fetch its receipt.
#   examples/curl.sh http://127.0.0.1:8088/v1 smollm2-135m-instruct "What is gold?" receipt.json
set -euo pipefail
url=$1 model=$2 question=$3 receipt=$4
headers=$(mktemp)
trap 'rm -f "$headers"' EXIT

# The Idempotency-Key makes it safe to repeat the whole command: it buys once.
curl --silent --show-error --fail-with-body --dump-header "$headers" \
  "$url/chat/completions" \
  -H "Content-Type: application/json" \
  -H "Authorization: Bearer ${API_KEY:-none}" \
  -H "Idempotency-Key: ${REQUEST_ID:-$RANDOM$RANDOM$RANDOM}" \
  -d "{\"model\": \"$model\", \"max_tokens\": 16, \"messages\": [{\"role\": \"user\", \"content\": \"$question\"}]}"
echo

job=$(tr -d '\r' < "$headers" | sed -n 's/^x-assay-job: //p')
curl --silent --show-error --fail-with-body --output "$receipt" \
  -H "Authorization: Bearer ${API_KEY:-none}" "$url/receipts/$job"
echo "receipt of job $job: $receipt"
