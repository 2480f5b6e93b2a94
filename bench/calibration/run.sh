#!/usr/bin/env bash
# The calibration reports in this directory, from the real model. Hours on two cores; may be stopped and run again.
#   bench/calibration/run.sh [float32|float16|bfloat16|cross …]   default: all
# ASSAY_TORCH_PYTHON names the Python that has vLLM (docs/runtime-vllm.md). JOBS, FRAUD_JOBS, TOKENS: how much.
set -euo pipefail
cd "$(dirname "$0")/../.."

model="${ASSAY_MODEL_DIRECTORY:-.cache/models/smollm2-135m-instruct}"
work="${WORK:-.cache/calibration}"
python="${ASSAY_TORCH_PYTHON:?names no Python with vLLM}"
jobs="${JOBS:-2100}" tokens="${TOKENS:-256}" in_flight="${IN_FLIGHT:-8,32,64}"
export PYTHONPATH="$PWD"

calibrate() {
  local dtype="$1"
  shift
  "$python" -m runtime.calibration "$model" --work "$work" \
    --provider-engine vllm --provider-dtype "$dtype" \
    --threads "${THREADS:-2}" --kv-cache-mib 768 --in-flight "$in_flight" \
    --jobs "$jobs" --fraud-jobs "${FRAUD_JOBS:-240}" --steered-jobs "${STEERED_JOBS:-60}" \
    --max-output-tokens "$tokens" "$@" > /dev/null
}

# vLLM's environment has no matplotlib: reports are written there, and drawn here from the same records.
draw() {
  local report sides
  for report in "$work"/*--*.json "$work-mixed"/*--*.json; do
    [ -e "$report" ] || continue
    mapfile -t sides < <(.venv/bin/python -c '
import json, sys
report = json.load(open(sys.argv[1]))
print("--provider-profile", report["provider_profile"], sep="\n")
print("--verifier-profile", report["verifier_profile"], sep="\n")
if report["corpus"].get("verifier_compiled"):
    print("--verifier-compiled")' "$report")
    .venv/bin/assay model calibrate "$model" --work "$(dirname "$report")" --stage report \
      "${sides[@]}" --jobs "$jobs" --max-output-tokens "$tokens" --in-flight "$in_flight" \
      --output bench/calibration --plots bench/calibration
  done
}

if [ $# -eq 0 ]; then set -- float32 float16 bfloat16 cross; fi
for name in "$@"; do
  echo "==> $name" >&2
  case "$name" in
    cross) calibrate float32 --verifier-engine reference ;;
    float32) calibrate float32 --verifier-engine vllm --verifier-dtype float32 ;;
    *) # 16-bit sides with the same kernels would agree too well (docs/calibration.md).
      work="$work-mixed" calibrate "$name" --verifier-engine vllm --verifier-dtype "$name" \
        --verifier-compiled ;;
  esac
done
draw
