"""The whole calibration on a tiny model: the honest pass, cheats are caught, work is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chain.cli.main import build_app
from runtime.calibration.frauds import families
from runtime.calibration.records import RecordFile, Transcript
from runtime.packages import REFERENCE_PROFILE, ModelPackage
from tests.runtime.tiny_model import TinyModel, tiny_package

PAIR = f"{REFERENCE_PROFILE}--{REFERENCE_PROFILE}"
ARGUMENTS = ["--jobs", "128", "--fraud-jobs", "24", "--steered-jobs", "8"]
ARGUMENTS += ["--max-output-tokens", "36", "--in-flight", "1,8"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return tiny_package(tmp_path_factory.mktemp("model"), TinyModel(context_tokens=2_048))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def calibrate(package: ModelPackage, work: Path, *more: str) -> Any:
    arguments = ["model", "calibrate", str(package.path), "--work", str(work), *ARGUMENTS, *more]
    return CliRunner().invoke(build_app(), arguments)


@pytest.fixture(scope="module")
def report(package: ModelPackage, work: Path) -> dict[str, Any]:
    result = calibrate(package, work, "--json", "--plots", str(work / "plots"))
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def whole(report: dict[str, Any], fraud: str) -> dict[str, Any]:
    entries = report["held_out"]["frauds"][fraud]["by_length"]
    found: dict[str, Any] = next(e for e in entries if e["output_tokens"] == "whole")
    return found


def test_honest_jobs_of_both_parts_score_zero_and_pass(report: dict[str, Any]) -> None:
    for bound in report["thresholds"].values():
        assert bound in (0, {"base": 0, "rate": 0})
    for entry in report["held_out"]["false_rejections"]:
        assert set(entry["rejected"].values()) == {0}
    jobs = report["jobs"]
    assert jobs["honest_fitting"] + jobs["honest_held_out"] == 128
    assert min(jobs["honest_fitting"], jobs["honest_held_out"]) >= 24


def test_every_fraud_is_in_the_report(report: dict[str, Any]) -> None:
    assert set(report["held_out"]["frauds"]) == set(families())


@pytest.mark.parametrize(
    "fraud",
    ["int4", "dropped-layer", "smaller-model", "other-model", "wrong-seed", "ground-seed",
     "greedy", "no-system-message", "swapped-tokens", "forger-int4"],
)  # fmt: skip
def test_gross_frauds_are_caught_in_every_job_they_change(
    report: dict[str, Any], fraud: str
) -> None:
    found = whole(report, fraud)
    assert found["jobs"] > found["output_as_if_honest"]
    assert found["detected"]["registered"] >= found["jobs"] - found["output_as_if_honest"]


def test_a_forger_is_found_by_replay_alone(report: dict[str, Any]) -> None:
    detected = whole(report, "forger-int4")["detected"]
    assert detected["distances"] == 0
    assert detected["margins"] > 0


def test_a_steerer_that_is_allowed_nothing_is_honest(report: dict[str, Any]) -> None:
    found = whole(report, "steerer")
    assert found["output_as_if_honest"] == found["jobs"]
    assert found["detected"]["registered"] == 0


def test_the_same_corpus_is_run_again_without_any_work(
    package: ModelPackage, work: Path, report: dict[str, Any]
) -> None:
    before = {path: path.stat().st_size for path in work.rglob("*.jsonl")}
    again = calibrate(package, work, "--json")
    assert json.loads(again.stdout) == report
    assert {path: path.stat().st_size for path in work.rglob("*.jsonl")} == before
    assert "generating" not in again.stderr
    assert "replaying" not in again.stderr


def test_a_run_that_was_cut_off_ends_where_the_uncut_one_did(
    package: ModelPackage, work: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    for path in work.rglob("*.jsonl"):
        target = tmp_path / path.relative_to(work)
        target.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        target.write_bytes(data[: len(data) - 3_000])
    (tmp_path / "corpus.json").write_bytes((work / "corpus.json").read_bytes())
    resumed = calibrate(package, tmp_path, "--json")
    assert json.loads(resumed.stdout) == report
    assert "generating" in resumed.stderr


def test_batches_of_several_sizes_are_in_the_records(work: Path, report: dict[str, Any]) -> None:
    with RecordFile(work / "transcripts" / f"{REFERENCE_PROFILE}.jsonl", Transcript) as rows:
        sizes = {row.in_flight for row in rows if row.fraud == "honest"}
    assert report["corpus"]["in_flight"] == [1, 8]
    assert sizes == {1, 8}


def test_plots_are_drawn_in_both_formats(work: Path, report: dict[str, Any]) -> None:
    names = {path.name for path in (work / "plots").iterdir()}
    kinds = ("roc", "detection", "wealth")
    assert names == {f"{PAIR}-{kind}.{form}" for kind in kinds for form in ("png", "svg")}


def test_another_corpus_needs_another_directory(
    package: ModelPackage, work: Path, report: dict[str, Any]
) -> None:
    refused = calibrate(package, work, "--corpus-seed", "2")
    assert refused.exit_code == 1
    assert "is of another model or corpus" in refused.stderr
    assert "give another working directory" in refused.stderr


def test_a_compiled_side_needs_another_directory_too(
    package: ModelPackage, work: Path, report: dict[str, Any]
) -> None:
    refused = calibrate(package, work, "--verifier-compiled")
    assert refused.exit_code == 1
    assert "give another working directory" in refused.stderr


def test_too_few_jobs_are_an_error_that_says_so(package: ModelPackage, tmp_path: Path) -> None:
    few = calibrate(package, tmp_path, "--jobs", "16", "--fraud", "honest")
    assert few.exit_code == 1
    assert "honest jobs are too few to fit, at least 24" in few.stderr


def test_jobs_of_another_corpus_are_judged_by_a_report_that_exists(
    package: ModelPackage, work: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    asked = ["--corpus-seed", "2", "--jobs", "12", "--fraud", "honest", "--fraud", "int4"]
    judged = calibrate(
        package, tmp_path, *asked, "--judged-by", str(work / f"{PAIR}.json"), "--json"
    )
    assert judged.exit_code == 0, judged.stderr
    found = json.loads(judged.stdout)
    assert found["thresholds"] == report["thresholds"]
    assert (found["jobs"]["honest_fitting"], found["jobs"]["honest_held_out"]) == (0, 12)
    assert found["held_out"]["false_rejections"][-1]["rejected"]["registered"] == 0
    assert whole(found, "int4")["detected"]["registered"] > 0


def test_a_report_of_another_pair_judges_nothing(
    package: ModelPackage, work: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**report, "provider_profile": "fast"}))
    refused = calibrate(package, work, "--judged-by", str(other))
    assert refused.exit_code == 1
    assert "is no report to judge by: it is of fast and" in refused.stderr


def test_bad_numbers_in_flight_are_refused(package: ModelPackage, tmp_path: Path) -> None:
    refused = calibrate(package, tmp_path, "--in-flight", "1,many")
    assert refused.exit_code == 2
    assert "is no list of numbers" in refused.stderr
