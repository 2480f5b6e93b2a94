"""The verb on a tiny model: what it prints, writes, draws and refuses."""

import json
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from runtime.benchmark.cli import runtime_command
from runtime.packages import REFERENCE_PROFILE, ModelPackage
from tests.conftest import REPOSITORY
from tests.runtime.tiny_model import TinyModel, tiny_package

ARGUMENTS = ["--in-flight", "1,3", "--tokens", "8", "--rounds", "2"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return tiny_package(tmp_path_factory.mktemp("model"), TinyModel(context_tokens=2_048))


def bench(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(runtime_command)
    return CliRunner().invoke(app, arguments)


@pytest.fixture(scope="module")
def saved(package: ModelPackage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reports") / "deep" / "tiny.json"
    made = bench(str(package.path), *ARGUMENTS, "--json", "--output", str(path))
    assert made.exit_code == 0, made.stderr
    assert json.loads(made.stdout) == json.loads(path.read_text())
    assert "round 2 of 2, 3 in flight" in made.stderr
    return path


@pytest.fixture(scope="module")
def report(saved: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(saved.read_text())
    return found


def test_the_report_says_what_was_measured_and_on_what(
    report: dict[str, Any], package: ModelPackage
) -> None:
    assert report["profile"] == REFERENCE_PROFILE
    assert report["model"] == package.model_id.hex()
    assert report["engine"] == "reference"
    assert (report["threads"], report["rounds"], report["output_tokens"]) == (1, 2, 8)
    assert report["machine"]["processors"] >= report["machine"]["processors_allowed"] >= 1
    assert {"numpy", "numba"} <= set(report["versions"])
    assert 0 <= report["disturbance"]["processors_taken_by_others"] <= 1.1


def test_every_variant_is_measured_at_every_number_in_flight(report: dict[str, Any]) -> None:
    assert [entry["in_flight"] for entry in report["measured"]] == [1, 3]
    for entry in report["measured"]:
        assert set(entry["generate"]) == {"plain", "greedy", "provider"}
        rates = [*entry["generate"].values(), entry["verify"]]
        assert all(found["tokens_per_s"]["least"] > 0 for found in rates)
        assert {(o["variant"], o["base"]) for o in entry["overheads"]} == {
            ("greedy", "plain"),
            ("provider", "greedy"),
            ("provider", "plain"),
        }
        assert entry["first_token_ms"]["requests"] == 2 * entry["in_flight"]
        assert entry["peak_resident_mib"]["generate"] > 0


def test_a_saved_report_is_told_and_drawn_without_an_engine(saved: Path, tmp_path: Path) -> None:
    told = bench("--from", str(saved), "--plots", str(tmp_path))
    assert told.exit_code == 0, told.stderr
    assert "at 3, verify/generate" in told.stdout
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(drawn) == {"tiny.png", "tiny.svg"}
    assert bench("--from", str(saved), "--plots", str(tmp_path)).exit_code == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == drawn


@pytest.mark.parametrize("text", ["", "[]", '{"version": 99}', '{"version": 1, "measured": []}'])
def test_what_is_no_report_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    refused = bench("--from", str(path), "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stderr)["reason"] == "BAD_REPORT"


def test_assay_bench_has_the_verb() -> None:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        groups = tomllib.load(file)["project"]["entry-points"]
    entry = EntryPoint("runtime", groups["assay.bench"]["runtime"], "assay.bench")
    assert entry.load() is runtime_command


def test_a_call_without_package_or_report_is_wrong() -> None:
    refused = bench("--json")
    assert refused.exit_code == 2
    assert json.loads(refused.stderr) == {
        "reason": "NO_PACKAGE",
        "detail": "give a model package, or --from with a report",
    }


def test_a_directory_that_is_no_package_is_refused(tmp_path: Path) -> None:
    refused = bench(str(tmp_path), "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stderr.splitlines()[-1])["reason"] == "BAD_PACKAGE"


def test_vllm_where_it_is_not_installed_is_said(package: ModelPackage) -> None:
    refused = bench(str(package.path), "--engine", "vllm", "--json")
    assert refused.exit_code == 1
    report = json.loads(refused.stderr.splitlines()[-1])
    assert report["reason"] == "ENGINE_MISSING"
    assert "run this in the environment of the vllm extra" in report["detail"]


def test_kernels_are_set_against_memory_and_blas(package: ModelPackage, tmp_path: Path) -> None:
    path = tmp_path / "kernels.json"
    made = bench(str(package.path), "--kernels", "--rounds", "1", "--output", str(path))
    assert made.exit_code == 0, made.stderr
    found = json.loads(path.read_text())["kernels"]
    assert found["profile"] == REFERENCE_PROFILE
    names = {"decode / memory bandwidth", "prefill 192 / BLAS", "batch 16 pass / single pass"}
    assert names <= set(found["results"])
    assert all(value["least"] > 0 for value in found["results"].values())
    assert "decode / memory bandwidth" in made.stdout
