#!/usr/bin/env bash
# A gateway by hand: ask, find the job in the headers, fetch its receipt.
#   examples/curl.sh http://127.0.0.1:8088/v1 smollm2-135m-instruct "What is gold?" receipt.json
set -euo pipefail
url=$1 model=$2 question=$3 receipt=$4
headers=$(mktemp)
trap 'rm -f "$headers"' EXIT

body=$(python3 - "$model" "$question" <<'PYTHON'
import json, sys
model, question = sys.argv[1:]
messages = [{"role": "user", "content": question}]
print(json.dumps({"model": model, "max_tokens": 16, "messages": messages}))
PYTHON
)

# The same question has the same Idempotency-Key, so to repeat the whole command buys once. To buy
# the same again, give another REQUEST_ID.
request=$(printf '%s\n' "${REQUEST_ID:-}" "$body" | sha256sum | cut -d ' ' -f 1)
curl --silent --show-error --fail-with-body --dump-header "$headers" \
  "$url/chat/completions" \
  -H "Content-Type: application/json" \
  -H "Authorization: Bearer ${API_KEY:-none}" \
  -H "Idempotency-Key: $request" \
  --data-binary "$body"
echo

job=$(tr -d '\r' < "$headers" | sed -n 's/^x-assay-job: //p')
curl --silent --show-error --fail-with-body --output "$receipt" \
  -H "Authorization: Bearer ${API_KEY:-none}" "$url/receipts/$job"
echo "receipt of job $job: $receipt"
