"""Each supported architecture against Hugging Face transformers, on tiny models."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.packages import ModelPackage, PackageError, load, pack
from runtime.reference.model import Model
from runtime.reference.weights import load_weights
from tests.fixtures.tiny_architectures import ARCHITECTURES, write_model
from tests.runtime.tiny_model import TinyModel

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
DOCUMENT = json.loads((FIXTURES / "architectures_reference.json").read_text(encoding="utf-8"))
CASES = DOCUMENT["cases"]
STRIDE = DOCUMENT["logit_stride"]
LOGIT_TOLERANCE = 2e-4
REGENERATION_TIMEOUT_S = 280


def package_of(name: str, folder: Path) -> ModelPackage:
    source = folder / "source"
    source.mkdir()
    write_model(name, source)
    (source / "tokenizer.json").write_text(json.dumps(TinyModel().tokenizer_json()))
    return pack(source, folder / "package")


def model_of(package: ModelPackage, **changed: object) -> Model:
    config = replace(package.config(), **changed)  # type: ignore[arg-type]
    return Model(config, load_weights(config, package.tensors()))


def greedy(model: Model, prompt_ids: list[int], count: int) -> list[int]:
    sequence = model.sequence(len(prompt_ids) + count)
    pending, found = prompt_ids, list[int]()
    for _ in range(count):
        logits = model.extend(sequence, pending, len(pending) - 1)
        pending = [int(logits[0].argmax())]
        found += pending
    return found


def farthest(model: Model, name: str) -> float:
    """Greatest difference of a logit to that of transformers."""
    case = CASES[name]
    ids = case["prompt_ids"] + case["output_ids"]
    logits = model.extend(model.sequence(len(ids)), ids, 0)[:, : model.config.vocabulary]
    return max(
        float(np.abs(logits[int(row), ::STRIDE] - np.array(expected)).max())
        for row, expected in case["logits"].items()
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tokens_and_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model = model_of(package_of(name, tmp_path))
    case = CASES[name]
    assert len(case["output_ids"]) == 16 and case["smallest_lead"] > 2 * LOGIT_TOLERANCE
    assert greedy(model, case["prompt_ids"], 16) == case["output_ids"]
    assert farthest(model, name) < LOGIT_TOLERANCE


def test_the_comparison_notices_each_setting(tmp_path: Path) -> None:
    """Fixtures that a wrong rotary embedding would pass as well prove nothing."""
    package = package_of("llama-3.1", tmp_path)
    assert len(package.config().rope_divisors) == 16
    assert farthest(model_of(package, rope_divisors=()), "llama-3.1") > 0.1
    assert farthest(model_of(package, rope_base=10_000.0), "llama-3.1") > 0.1
    assert farthest(model_of(package, rms_epsilon=1e-3), "llama-3.1") > 1e-3


def test_a_package_keeps_norms_and_divisors(tmp_path: Path) -> None:
    package = package_of("qwen3", tmp_path)
    again = load(package.path)
    assert again.config() == package.config() and again.config().qk_norm
    assert again.manifest.parameters == sum(
        values.size
        for values in (package.tensors().read(name) for name in package.tensors().names())
    )


def test_norms_the_config_does_not_speak_of_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="6 tensors no engine here understands"):
        model_of(package_of("qwen3", tmp_path), qk_norm=False)


def test_fixtures_are_what_transformers_gives_here(tmp_path: Path) -> None:
    interpreter = os.environ.get("ASSAY_TORCH_PYTHON")
    if not interpreter:
        why = "ASSAY_TORCH_PYTHON names no Python with torch and transformers"
        if os.environ.get("ASSAY_REQUIRE_VLLM") == "1":
            pytest.fail(why)
        pytest.skip(why)
    output = tmp_path / "fixtures.json"
    result = subprocess.run(
        [interpreter, "-m", "tests.fixtures.make_architecture_fixtures", str(output)],
        cwd=FIXTURES.parents[1],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=REGENERATION_TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    fresh = json.loads(output.read_text(encoding="utf-8"))
    assert fresh["logit_stride"] == STRIDE and fresh["cases"].keys() == CASES.keys()
    for name, case in CASES.items():
        for field in ("prompt_ids", "output_ids"):
            assert fresh["cases"][name][field] == case[field]
        for row, expected in case["logits"].items():
            found = np.array(fresh["cases"][name]["logits"][row])
            assert np.abs(found - np.array(expected)).max() < LOGIT_TOLERANCE
