"""vLLM as provider and as verifier, in the environment it lives in; see tests/runtime/vllm."""

import json
import subprocess
from pathlib import Path

from runtime.calibration.records import RecordFile, Transcript
from runtime.packages import REFERENCE_PROFILE, ModelPackage
from tests.runtime.vllm.conftest import EXPORTS, environment, in_torch_python

JOBS = 40
NAT = 1 << 20
TIMEOUT_S = 280


def test_float32_of_vllm_is_calibrated_against_the_reference_engine(
    smollm2_package: ModelPackage, tmp_path: Path
) -> None:
    options = ["--provider-engine", "vllm", "--verifier-engine", "reference", "--json"]
    options += ["--jobs", str(JOBS), "--fraud-jobs", str(JOBS), "--max-output-tokens", "4"]
    options += ["--in-flight", "3,16", "--fraud", "honest", "--fraud", "wrong-seed"]
    options += ["--work", str(tmp_path), "--export-directory", str(EXPORTS)]
    command = in_torch_python("-m", "runtime.calibration", str(smollm2_package.path), *options)
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    report = json.loads(done.stdout.splitlines()[-1])
    profile = report["provider_profile"]
    assert "float32" in profile
    assert report["verifier_profile"] == REFERENCE_PROFILE
    assert report["thresholds"]["distance_max"] < NAT // 500
    name = profile.replace("/", "+")
    with RecordFile(tmp_path / "transcripts" / f"{name}.jsonl", Transcript) as transcripts:
        assert len([row for row in transcripts if row.fraud == "honest"]) == JOBS
    noise = report["honest_noise"]
    for half in ("fitting", "held_out"):
        # What differs at all between two float32 engines is next to a tie.
        assert noise[half]["distance_max_nats"] < 2e-3
        assert noise[half]["margin_max_nats"] < 2e-3
    whole = report["held_out"]["frauds"]["wrong-seed"]["by_length"][-1]
    assert whole["detected"]["margins"] >= whole["jobs"] - whole["output_as_if_honest"] > 0
