"""`assay sim`: figures of runs, failing seeds that can be played again, mutants."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from chain.cli.main import build_app


def assay(*words: str) -> Result:
    return CliRunner().invoke(build_app(), ["sim", *words])


def test_a_run_says_the_same_whatever_the_number_of_processes() -> None:
    def traces(workers: str) -> object:
        done = assay("run", "--seeds", "0:5", "--profile", "calm", "--workers", workers, "--json")
        assert done.exit_code == 0, done.stderr
        row = json.loads(done.stdout)["by_validators"]["4"]
        assert (row["runs"], row["live_again"], row["violations"]) == (5, 5, 0)
        return row["traces_sha256"]

    assert traces("1") == traces("2")


def test_a_failing_seed_ends_with_1_and_names_a_command_that_fails_too() -> None:
    failed = assay("run", "--seeds", "0:2", "--mutant", "quorum-one-short", "--json")
    assert failed.exit_code == 1
    report = json.loads(failed.stdout)
    first = report["failed"][0]
    again = assay(*first["command"].split()[2:], "--json")
    assert again.exit_code == 1
    assert json.loads(again.stdout)["failed"][0]["violation"] == first["violation"]


def test_a_trace_and_a_report_are_written_and_a_trace_takes_one_seed(tmp_path: Path) -> None:
    trace, report = tmp_path / "trace", tmp_path / "report.json"
    options = ["run", "--profile", "calm", "--stakes", "1,1,2,1"]
    done = assay(*options, "--seeds", "3:4", "--trace", str(trace), "--output", str(report))
    assert done.exit_code == 0, done.stderr
    assert "Proposal view 1 height 1 on 0" in trace.read_text()
    assert json.loads(report.read_text())["runs"] == 1
    refused = assay(*options, "--seeds", "3:5", "--trace", str(trace))
    assert (refused.exit_code, "--trace takes one seed" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seeds", "5:5"), "expected A:B with A below B"),
        (("--validators", "3"), "allowed are 4 to 31"),
        (("--stakes", "1,2"), "2 stakes for 4 validators"),
        (("--profile", "storm"), "profile 'storm' is unknown"),
        (("--only", "rain"), "nothing that may go wrong is called 'rain'"),
        (("--mutant", "rain"), "mutant 'rain' is unknown"),
    ],
)
def test_options_that_name_nothing_are_refused(words: tuple[str, str], message: str) -> None:
    refused = assay("run", *words)
    assert refused.exit_code == 2
    assert message in " ".join(refused.stderr.split())


def test_mutants_are_listed_with_the_seed_that_catches_them() -> None:
    done = assay("mutants", "--only", "proof-of-one-ack", "--json")
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads(done.stdout)["mutants"]
    assert (row["mutant"], row["first_seed"]) == ("proof-of-one-ack", 0)
    assert "a proof of lane" in row["violation"]
    missed = assay("mutants", "--only", "never-repeat", "--seeds", "1:2", "--json")
    assert missed.exit_code == (1 if json.loads(missed.stdout)["missed"] else 0)


def test_a_wide_area_report_has_a_row_for_every_workload_and_names_its_source(
    tmp_path: Path,
) -> None:
    path = tmp_path / "wan.json"
    short = ("--validators", "4", "--seconds", "1", "--idle-seconds", "1")
    done = assay("wan", *short, "--output", str(path), "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert json.loads(path.read_text()) == report
    assert [row["workload"] for row in report["rows"]] == ["idle", "sparse", "load", "load"]
    assert "ibm-cloud-docs" in report["assumptions"]["round_trip_source"]
    refused = assay("wan", "--validators", "3")
    assert (refused.exit_code, "allowed are 4 to 128" in refused.stderr) == (2, True)


def test_outages_cost_less_than_three_times_calm_and_every_payment_is_final(tmp_path: Path) -> None:
    path = tmp_path / "outages.json"
    short = ("--calm-seconds", "8", "--fault-seconds", "5", "--outages", "3")
    done = assay("outages", *short, "--output", str(path), "--json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(path.read_text())["rows"]
    assert row["not_final"] == 0
    assert [turn["outage"] for turn in row["turns"]] == ["kill", "stop", "cut"]
    assert row["given_up_ms"]["later_of_an_outage"]["p50"] < 300
    refused = assay("outages", "--validators", "3")
    assert refused.exit_code == 2
