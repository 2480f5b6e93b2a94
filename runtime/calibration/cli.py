"""The verb `assay model calibrate`. Heavy modules are imported when it runs."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from runtime.vllm_engine.settings import DataType, Settings

if TYPE_CHECKING:
    from runtime.calibration.pipeline import Opener, Parties, Plan
    from runtime.calibration.report import Parts
    from runtime.calibration.sides import ReferenceSide
    from runtime.packages import ModelPackage

TELL_EVERY_S: Final = 5.0
DEFAULT_WORK: Final = Path(".cache/calibration")
IN_FLIGHT_MAX: Final = 256


class Engine(StrEnum):
    """What a side runs."""

    REFERENCE = "reference"
    VLLM = "vllm"


class Part(StrEnum):
    """A stage of the work; the values are those of `pipeline.Stage`."""

    GENERATE = "generate"
    REPLAY = "replay"
    STEER = "steer"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class SideOptions:
    """One side as the command line describes it."""

    engine: Engine
    dtype: DataType
    threads: int
    kv_cache_mib: int | None
    export_directory: Path
    compiled: bool
    known_profile: str | None = None

    def settings(self) -> Settings:
        """For vLLM."""
        return Settings(
            dtype=self.dtype,
            threads=self.threads,
            kv_cache_mib=self.kv_cache_mib,
            compiled=self.compiled,
            export_directory=self.export_directory,
        )

    def opener(self) -> "Opener":
        """Loads a package into this engine."""
        if self.engine is Engine.REFERENCE:
            return self.open_reference

        def open_vllm(package: "ModelPackage") -> Any:
            from runtime.calibration.vllm_side import VllmSide

            return VllmSide(package, self.settings())

        return open_vllm

    def open_reference(self, package: "ModelPackage") -> "ReferenceSide":
        """Loads a package into the reference engine."""
        from runtime.calibration.sides import ReferenceSide

        return ReferenceSide.load(package, self.threads)

    def profile(self) -> str:
        """The engine profile, which names the side's files."""
        if self.known_profile is not None:
            return self.known_profile
        if self.engine is Engine.REFERENCE:
            from runtime.packages import REFERENCE_PROFILE

            return REFERENCE_PROFILE
        from runtime.vllm_engine.launch import profile_of

        return profile_of(self.settings())


class RateTeller:
    """Says on standard error what is done, how fast, and how long the rest will take."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._what = ""
        self._started_s = self._told_s = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """A `stages.Tell`."""
        now_s = self._clock()
        if what != self._what:
            self._what, self._started_s, self._told_s = what, now_s, now_s - TELL_EVERY_S
            self._before = done - 1
        if done < total and now_s - self._told_s < TELL_EVERY_S:
            return
        self._told_s = now_s
        line = f"{what}: {done} of {total}"
        taken_s = now_s - self._started_s
        if taken_s > 0 and done - self._before > 1:
            rate = (done - self._before - 1) / taken_s
            line += f", {rate:.2f}/s, {(total - done) / rate:.0f} s to go"
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def read_counts(text: str) -> tuple[int, ...]:
    """Numbers of generations under way together, as in 1,8,32. Raises typer.BadParameter."""
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of numbers such as 1,8,32") from error
    if not all(1 <= count <= IN_FLIGHT_MAX for count in counts):
        raise typer.BadParameter(f"each number must be from 1 to {IN_FLIGHT_MAX}")
    return counts


def summary(report: dict[str, Any], path: Path) -> dict[str, Any]:
    """What is printed of a report."""
    held_out = report["held_out"]
    whole = next(e for e in held_out["false_rejections"] if e["output_tokens"] == "whole")
    lines: dict[str, Any] = {
        "report": str(path),
        "provider": report["provider_profile"],
        "verifier": report["verifier_profile"],
        **report["thresholds"],
        "honest_held_out": f"{whole['rejected']['registered']} of {whole['jobs']} rejected",
    }
    for name, fraud in sorted(held_out["frauds"].items()):
        shares = ", ".join(
            f"{entry['detected']['registered']}/{entry['jobs']} at {entry['output_tokens']}"
            for entry in fraud["by_length"]
        )
        lines[name] = shares or "no held-out job"
    return lines


def calibrate_command(  # noqa: PLR0913, PLR0917 - one parameter an option
    package: Annotated[Path, typer.Argument(help="A model package.")],
    provider_engine: Annotated[Engine, typer.Option(help="What generates.")] = Engine.REFERENCE,
    provider_dtype: Annotated[
        DataType, typer.Option(help="vllm: precision of the provider.")
    ] = DataType.FLOAT32,
    verifier_engine: Annotated[Engine, typer.Option(help="What verifies.")] = Engine.REFERENCE,
    verifier_dtype: Annotated[
        DataType, typer.Option(help="vllm: precision of the verifier.")
    ] = DataType.FLOAT32,
    provider_compiled: Annotated[
        bool, typer.Option("--provider-compiled", help="vllm on a CPU: compile the provider.")
    ] = False,
    verifier_compiled: Annotated[
        bool, typer.Option("--verifier-compiled", help="vllm on a CPU: compile the verifier.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads of each engine.")] = 1,
    kv_cache_mib: Annotated[
        int | None, typer.Option(min=1, help="vllm: key-value cache of each engine.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Directory of records; give it again to go on.")] = (
        DEFAULT_WORK
    ),
    jobs: Annotated[int, typer.Option(min=1, max=100_000, help="Honest jobs.")] = 1_200,
    fraud_jobs: Annotated[int, typer.Option(min=0, max=100_000, help="Jobs of each fraud.")] = 120,
    steered_jobs: Annotated[int, typer.Option(min=0, help="Jobs of the steerer.")] = 60,
    max_output_tokens: Annotated[int, typer.Option(min=1, help="Of each job.")] = 256,
    corpus_seed: Annotated[int, typer.Option(min=0, help="Chooses the requests.")] = 1,
    in_flight: Annotated[
        str, typer.Option(help="Generations under way together; jobs are shared out among these.")
    ] = "1,8,32",
    verify_in_flight: Annotated[
        int, typer.Option(min=1, max=IN_FLIGHT_MAX, help="Verifications under way together.")
    ] = 8,
    fraud: Annotated[
        list[str] | None, typer.Option(help="Only this fraud, or `honest`; may be given again.")
    ] = None,
    stage: Annotated[
        list[Part] | None, typer.Option(help="Only this part; may be given again.")
    ] = None,
    judged_by: Annotated[
        Path | None,
        typer.Option(help="A report of this pair: judge by its thresholds, fit nothing."),
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Directory to write plots to.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Directory to write the report to, too.")
    ] = None,
    provider_profile: Annotated[
        str | None,
        typer.Option(help="Engine profile, where its engine is not installed: for --stage report."),
    ] = None,
    verifier_profile: Annotated[str | None, typer.Option(help="The same of the verifier.")] = None,
    export_directory: Annotated[
        Path | None,
        typer.Option(help="vllm: where weights in its format are kept; by default in --work."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Fit a model's thresholds on honest jobs and frauds, and report on jobs held out of the fit.

    Records are kept in the working directory: a run that was stopped goes on where it was.
    """
    from runtime.calibration.pipeline import Parties, Plan, Stage, run_stages
    from runtime.cli import emit, fail
    from runtime.packages import PackageError, load

    counts = read_counts(in_flight)
    # Ended either way, the engines of both sides are closed: vLLM's run in processes of their own.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    exports = export_directory or work / "exports"
    provider = SideOptions(
        provider_engine,
        provider_dtype,
        threads,
        kv_cache_mib,
        exports,
        provider_compiled,
        provider_profile,
    )
    verifier = SideOptions(
        verifier_engine,
        verifier_dtype,
        threads,
        kv_cache_mib,
        exports,
        verifier_compiled,
        verifier_profile,
    )
    parties = Parties(
        open_provider=provider.opener(),
        open_verifier=verifier.opener(),
        open_reference=provider.open_reference,
        provider_profile=provider.profile,
        verifier_profile=verifier.profile,
    )
    try:
        plan = Plan(
            package=load(package),
            work=work,
            corpus_seed=corpus_seed,
            jobs=jobs,
            fraud_jobs=fraud_jobs,
            steered_jobs=steered_jobs,
            max_output_tokens=max_output_tokens,
            in_flights=counts,
            verify_in_flight=verify_in_flight,
            frauds=tuple(fraud) if fraud else None,
            provider_compiled=provider_compiled,
            verifier_compiled=verifier_compiled,
            judged_by=judged_by,
        )
        stages = [Stage(part.value) for part in (stage or list(Part))]
        made = run_stages(plan, parties, stages, RateTeller())
    except ImportError as error:
        fail(as_json, "ENGINE_MISSING", f"{error}; run this in the environment of the vllm extra")
    except PackageError as error:
        fail(as_json, "BAD_PACKAGE", str(error))
    except (ValueError, OSError) as error:
        # ValueError: too few jobs to fit, a damaged record, another corpus's directory.
        fail(as_json, "CALIBRATION_FAILED", str(error))
    if made is not None:
        report, parts = made
        path = publish(report, parts, plan, parties, output, plots)
        emit(as_json, report if as_json else summary(report, path))


def publish(
    report: "dict[str, Any]",
    parts: "Parts",
    plan: "Plan",
    parties: "Parties",
    output: Path | None,
    plots: Path | None,
) -> Path:
    """Copy the report to where it is wanted, draw its plots; returns where the report is."""
    path = plan.report_path(parties.provider_profile(), parties.verifier_profile())
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        part = output / f"{path.name}.{os.getpid()}.part"
        part.write_bytes(path.read_bytes())
        path = part.replace(output / path.name)
    if plots is not None:
        from runtime.calibration.plots import write_plots

        write_plots(report, parts, plots, path.stem)
    return path
