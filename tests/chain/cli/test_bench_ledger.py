"""`assay bench ledger` as a person calls it."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from chain.cli.bench import build_app

SMALL = ("--transactions", "120", "--accounts", "50", "--batch-transactions", "25", "--runs", "2")


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(build_app(), ["ledger", *arguments])


def test_the_report_has_stages_baselines_and_ratios(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    result = bench(*SMALL, "--directory", str(tmp_path / "disk"), "--output", str(file), "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert json.loads(file.read_text()) == report
    assert report["runs"] == 2
    assert {"total", "parse", "verify", "persist", "read", "execute", "commit"} == set(
        report["cpu_us"]
    )
    for ratio in report["ratios"].values():
        assert 0 < ratio["least"] <= ratio["median"] <= ratio["greatest"]
    assert report["jobs"]["a_block"] == 120
    assert report["jobs"]["request_and_result_pairs_a_cpu_second"]["least"] > 0
    assert list((tmp_path / "disk").iterdir()) == []


def test_people_get_lines() -> None:
    result = bench(*SMALL)
    assert result.exit_code == 0, result.stderr
    assert "libsodium, one by one" in result.stdout
    assert "jobs: requests with results" in result.stdout
    assert "run 2 of 2" in result.stderr


def test_several_processes_report_what_they_did_together() -> None:
    result = bench(*SMALL, "--validators", "2", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["processes"] == 2
    assert len({one["execution_root"] for one in report["each"]}) == 2
    assert report["transactions_a_second_together"]["least"] > 0


def test_impossible_options_are_named() -> None:
    result = bench("--transactions", "10", "--accounts", "5", "--senders", "9", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stderr.splitlines()[-1])["reason"] == "BAD_OPTIONS"
