"""The verb with vLLM and the real model, in the environment it lives in; see tests/runtime/vllm."""

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.packages import ModelPackage
from tests.runtime.tiny_model import TinyModel, tiny_package
from tests.runtime.vllm.conftest import EXPORTS, WHOLE_RUN_BOUND_S, run_in_torch_python

pytestmark = pytest.mark.timeout(WHOLE_RUN_BOUND_S + 60)
ROWS = {1, 8, 16, 32, 256}


def bench(package: ModelPackage, path: Path, *options: str) -> dict[str, Any]:
    fixed = ["--engine", "vllm", "--export-directory", str(EXPORTS), "--output", str(path)]
    code, _, errors = run_in_torch_python(
        "-m", "runtime.benchmark", str(package.path), *fixed, "--rounds", "1", *options
    )
    assert code == 0, errors[-3_000:]
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_our_sampling_is_set_against_vllms_own(
    smollm2_package: ModelPackage, tmp_path: Path
) -> None:
    report = bench(smollm2_package, tmp_path / "report.json", "--in-flight", "1,2", "--tokens", "6")
    assert report["profile"] == "vllm-0.32/cpu/float32/tp1/pp1"
    assert "torch" in report["versions"]
    for entry, count in zip(report["measured"], (1, 2), strict=True):
        assert entry["in_flight"] == count
        assert set(entry["generate"]) == {"own", "own+logprobs", "public", "provider"}
        assert {(o["variant"], o["base"]) for o in entry["overheads"]} == {
            ("own+logprobs", "own"),
            ("public", "own"),
            ("provider", "own+logprobs"),
            ("provider", "own"),
        }
        # Weights in float32, in whichever process of the tree holds them.
        assert entry["peak_resident_mib"]["generate"] > 500


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_are_measured_at_every_number_of_rows(tmp_path: Path, dtype: str) -> None:
    package = tiny_package(tmp_path, TinyModel(width=64, heads=4))
    report = bench(package, tmp_path / "report.json", "--kernels", "--dtype", dtype)
    found = report["kernels"]["products"]
    names = {"qkv", "output", "gate_up", "down", "head", "all layers"}
    pairs = [(entry["rows"], entry["product"]) for entry in found]
    assert sorted(pairs) == sorted((rows, name) for rows in ROWS for name in names)
    assert all(entry["gflop_per_s"]["least"] > 0 for entry in found)
