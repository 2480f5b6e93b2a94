"""vLLM as provider and as verifier, in the environment it lives in; see tests/runtime/vllm.

On a tiny model: that vLLM and the reference engine agree on a real one is tested there.
"""

import json
from pathlib import Path

import pytest

from runtime.calibration.records import RecordFile, Transcript
from runtime.packages import REFERENCE_PROFILE
from tests.runtime.tiny_model import TinyModel, tiny_package
from tests.runtime.vllm.conftest import WHOLE_RUN_BOUND_S, run_in_torch_python

JOBS = 92
FRAUD_JOBS = 12
NAT = 1 << 20
MODEL = TinyModel(width=64, heads=2, kv_heads=1, head_width=64, context_tokens=2_048)
"""vLLM's attention on CPUs takes heads of certain widths only."""


@pytest.mark.timeout(WHOLE_RUN_BOUND_S + 60)
def test_float32_of_vllm_is_calibrated_against_the_reference_engine(
    tmp_path: Path,
) -> None:
    package = tiny_package(tmp_path, MODEL)
    work = tmp_path / "work"
    options = ["--provider-engine", "vllm", "--verifier-engine", "reference", "--json"]
    options += ["--jobs", str(JOBS), "--fraud-jobs", str(FRAUD_JOBS), "--max-output-tokens", "4"]
    options += ["--in-flight", "3,16", "--fraud", "honest", "--fraud", "wrong-seed"]
    options += ["--work", str(work), "--export-directory", str(tmp_path / "exports")]
    code, output, errors = run_in_torch_python(
        "-m", "runtime.calibration", str(package.path), *options
    )
    assert code == 0, errors[-3_000:]
    report = json.loads(output.splitlines()[-1])
    profile = report["provider_profile"]
    assert "float32" in profile
    assert report["verifier_profile"] == REFERENCE_PROFILE
    assert report["thresholds"]["distance_max"] < NAT // 500
    name = profile.replace("/", "+")
    with RecordFile(work / "transcripts" / f"{name}.jsonl", Transcript) as transcripts:
        assert len([row for row in transcripts if row.fraud == "honest"]) == JOBS
    noise = report["honest_noise"]
    for part in ("fitting", "held_out"):
        # What differs at all between two float32 engines is next to a tie.
        assert noise[part]["distance_max_nats"] < 2e-3
        assert noise[part]["margin_max_nats"] < 2e-3
    whole = report["held_out"]["frauds"]["wrong-seed"]["by_length"][-1]
    assert whole["detected"]["margins"] >= whole["jobs"] - whole["output_as_if_honest"] > 0
