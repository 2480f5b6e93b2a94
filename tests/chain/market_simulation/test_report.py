"""`assay sim market` as a user meets it: the report, its plots, what it refuses."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from chain.cli.sim_market import market
from chain.market_simulation.assumptions import CALIBRATION_REPORT, read_reports
from chain.market_simulation.catalogue import Sweep, strategies, sweeps
from chain.market_simulation.scenarios import Scenario

BASE = Scenario(group_providers=1, jobs=2)
SMALL = ["--jobs", "2", "--seeds", "1", "--no-sweeps", "--verifiers", "4", "--trap-jobs", "2"]


def app() -> typer.Typer:
    found = typer.Typer()
    found.command()(market)
    return found


def test_a_run_writes_its_report_and_plots_and_says_what_honesty_loses_to(tmp_path: Path) -> None:
    report, plots = tmp_path / "market.json", tmp_path / "plots"
    options = SMALL
    ran = CliRunner().invoke(app(), [*options, "--output", str(report), "--plots", str(plots)])
    assert ran.exit_code == 0, ran.output
    written = json.loads(report.read_text())
    played = {row["name"]: row for row in written["strategies"]}
    assert set(played) == {
        name for name, _ in strategies(Scenario(verifiers=BASE.verifiers[:4], group_providers=1), 2)
    }
    losing = written["honesty_does_not_pay_against"]
    assert losing == [name for name, row in played.items() if not row["honesty_pays"]]
    for name in losing:
        assert any(
            name in line and "HONESTY DOES NOT PAY" in line for line in ran.output.split("\n")
        )
    assert {file.name for file in plots.iterdir()} == {"strategies.png", "strategies.svg"}


def test_with_json_standard_output_is_the_report_and_nothing_else(tmp_path: Path) -> None:
    report = tmp_path / "market.json"
    options = [
        "--jobs",
        "2",
        "--seeds",
        "1",
        "--no-sweeps",
        "--verifiers",
        "4",
        "--trap-jobs",
        "2",
        "--json",
    ]
    ran = CliRunner().invoke(app(), [*options, "--output", str(report)])
    assert ran.exit_code == 0, ran.stderr
    assert json.loads(ran.stdout) == json.loads(report.read_text())


def test_every_figure_that_was_measured_names_its_report() -> None:
    sources = read_reports().sources
    for name in ("detection_ppm", "false_rejection_ppm", "thresholds"):
        assert CALIBRATION_REPORT.name in sources[name]


def test_a_file_that_is_no_report_is_refused_by_name(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    ran = CliRunner().invoke(app(), ["--calibration", str(other), "--json"])
    assert ran.exit_code == 1
    assert json.loads(ran.stderr)["reason"] == "BAD_REPORT"
    assert "other.json" in json.loads(ran.stderr)["detail"]


def test_a_report_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    options = [
        "--jobs",
        "2",
        "--seeds",
        "1",
        "--no-sweeps",
        "--verifiers",
        "4",
        "--trap-jobs",
        "2",
        "--json",
    ]
    ran = CliRunner().invoke(app(), [*options, "--output", str(tmp_path / "none" / "market.json")])
    assert ran.exit_code == 2
    refused = json.loads(ran.stderr.splitlines()[-1])
    assert (refused["reason"], "market.json" in refused["detail"]) == ("FILE", True)


@pytest.mark.parametrize("sweep", sweeps(len(BASE.verifiers)), ids=lambda sweep: sweep.name)
def test_every_point_of_a_sweep_is_a_market_of_its_own(sweep: Sweep) -> None:
    points = [
        (name, scenario)
        for value in sweep.values
        for name, scenario in sweep.scenarios(BASE, value)
    ]
    assert len(set(points)) == len(points)
