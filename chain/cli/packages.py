"""Model packages, through the runtime's own verbs: the chain does not know their format."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from chain.cli.output import fail
from chain.model_audit import Package


def read_package(as_json: bool, path: Path) -> Package:
    """Check a package on disk; ends the command if a file of it differs from its manifest."""
    value = _run(as_json, "show", str(path))
    if value is None:
        fail(as_json, "BAD_PACKAGE", f"{path} is no sound package; see above")
    return _package(value)


def fetch_default(as_json: bool) -> Package:
    """The default model's package, fetched if it is not there."""
    value = _run(as_json, "fetch")
    if value is None:
        fail(as_json, "NO_MODEL", "the model can't be fetched; see above, or give --model PACKAGE")
    return _package(value)


def _package(value: dict[str, Any]) -> Package:
    return Package(
        bytes.fromhex(value["model"]),
        value["name"],
        value["context_tokens"],
        value["parameters"],
        Path(value["path"]),
    )


def _run(as_json: bool, *arguments: str) -> dict[str, Any] | None:
    """What a verb of `assay model` prints as JSON; None if it failed. Its progress and its error
    go to standard error."""
    if importlib.util.find_spec("runtime") is None:
        fail(as_json, "NO_RUNTIME", "the inference runtime, which reads packages, is not installed")
    command = str(Path(sys.executable).with_name("assay"))
    done = subprocess.run(
        [command, "model", *arguments, "--json"], stdout=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        return None
    value: dict[str, Any] = json.loads(done.stdout)
    return value
