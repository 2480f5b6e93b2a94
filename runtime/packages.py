"""Model packages: a directory whose manifest names every file with its SHA-256.

    manifest.json        canonical JSON; its tagged hash is the model id that goes on chain
    config.json          dimensions of the model, as the engine needs them
    tokenizer.json       Hugging Face `tokenizers` format
    chat_template.jinja  empty when the model has no chat format
    model.gguf           or *.safetensors, byte for byte as they came

`pack` makes one from a GGUF file or a Hugging Face directory; `load` refuses one that differs from
its manifest by a byte, by a missing file or by a file too many, and names the file.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ext.hashing import tagged_hash
from runtime.errors import PackageError
from runtime.model_config import (
    CONFIG_NAME,
    ModelConfig,
    canonical_json,
    config_from_json,
    config_to_json,
)
from runtime.sources import TEMPLATE_NAME, TOKENIZER_NAME, Source, read_source
from runtime.tensors import GgufTensors, SafetensorsTensors, TensorSource

__all__ = [
    "MANIFEST_NAME",
    "REFERENCE_PROFILE",
    "REFERENCE_Q8_PROFILE",
    "Manifest",
    "ModelPackage",
    "PackageError",
    "PackageFile",
    "ProgressCallback",
    "load",
    "pack",
    "write_package",
]

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = 1
GGUF_NAME = "model.gguf"
REFERENCE_PROFILE = "reference-float32-1"
"""Arithmetic of the reference engine; a change of any bit of its results needs a new name."""
REFERENCE_Q8_PROFILE = "reference-q8-1"
"""The same over weights rounded to 8 bits (see `runtime.reference.weights`): a quarter of the
memory, and another model's bits, so a package must be registered for it."""
MODEL_TAG = b"model"
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILES = 4096

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256_HEX = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 22

ProgressCallback = Callable[[str, int, int], None]
"""Called with (what is being done, bytes done, bytes in all)."""


@dataclass(frozen=True, slots=True)
class PackageFile:
    """One file of a package."""

    name: str
    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a package says about itself."""

    name: str
    architecture: str
    quantization: str
    engine_profiles: tuple[str, ...]
    context_tokens: int
    vocabulary: int
    parameters: int
    files: tuple[PackageFile, ...]


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A package on disk whose bytes were checked against its manifest."""

    path: Path
    manifest: Manifest
    model_id: bytes
    """tagged_hash(b"model", bytes of manifest.json), 32 bytes."""

    def file_bytes(self, name: str) -> bytes:
        """Contents of a small file of the package."""
        return (self.path / name).read_bytes()

    def config(self) -> ModelConfig:
        """The model's dimensions. Raises PackageError."""
        return config_from_json(self.file_bytes(CONFIG_NAME))

    def tensors(self) -> TensorSource:
        """The weights. Raises PackageError."""
        names = [file.name for file in self.manifest.files]
        if GGUF_NAME in names:
            config = self.config()
            return GgufTensors(
                self.path / GGUF_NAME, config.architecture, config.heads, config.kv_heads
            )
        return SafetensorsTensors(
            [self.path / name for name in names if name.endswith(".safetensors")]
        )


def pack(
    source: Path,
    output: Path,
    progress: ProgressCallback | None = None,
    name: str | None = None,
    engine_profiles: tuple[str, ...] = (REFERENCE_PROFILE,),
) -> ModelPackage:
    """Make a package at `output` (must not exist) from a GGUF file or a Hugging Face directory.

    `name` is what the manifest calls the model, by default what the source calls it;
    `engine_profiles` are what it is registered for, the first being the usual one. The package
    appears whole or not at all. Raises PackageError.
    """
    _check_free(output)
    contents = read_source(source)
    if name is not None:
        contents = replace(contents, name=name)
    return write_package(contents, output, progress, engine_profiles)


def write_package(
    contents: Source,
    output: Path,
    progress: ProgressCallback | None = None,
    engine_profiles: tuple[str, ...] = (REFERENCE_PROFILE,),
) -> ModelPackage:
    """Make a package of what was read, or made, elsewhere. Raises PackageError."""
    _check_free(output)
    partial = output.with_name(output.name + f".partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write_contents(contents, partial, progress, engine_profiles)
        try:
            partial.rename(output)
        except OSError as error:
            raise PackageError(f"{output}: cannot be put in place: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load(output, progress)


def _check_free(output: Path) -> None:
    if output.exists():
        raise PackageError(f"{output}: exists already; give another place or remove it")


def _write_contents(
    contents: Source,
    folder: Path,
    progress: ProgressCallback | None,
    engine_profiles: tuple[str, ...],
) -> None:
    small = {
        CONFIG_NAME: config_to_json(contents.config),
        TOKENIZER_NAME: contents.tokenizer_json,
        TEMPLATE_NAME: contents.chat_template.encode(),
    }
    for name, data in small.items():
        (folder / name).write_bytes(data)
    total = sum(path.stat().st_size for _, path in contents.weights)
    done = 0
    for name, path in contents.weights:
        with path.open("rb") as reader, (folder / name).open("wb") as writer:
            while chunk := reader.read(_CHUNK_BYTES):
                writer.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(f"copying {name}", done, total)
    names = sorted([*small, *(name for name, _ in contents.weights)])
    files = []
    for name in names:
        size_bytes = (folder / name).stat().st_size
        digest = _digest(folder / name, None)
        files.append({"name": name, "sha256": digest.hex(), "size_bytes": size_bytes})
    config = contents.config
    manifest = {
        "format": MANIFEST_FORMAT,
        "name": contents.name,
        "architecture": config.architecture,
        "quantization": contents.quantization,
        "engine_profiles": list(engine_profiles),
        "context_tokens": config.context_tokens,
        "vocabulary": config.vocabulary,
        "parameters": config.parameters,
        "files": files,
    }
    (folder / MANIFEST_NAME).write_bytes(canonical_json(manifest))


def load(path: Path, progress: ProgressCallback | None = None) -> ModelPackage:
    """Check every file of the package against its manifest. Raises PackageError naming the file."""
    manifest_path = path / MANIFEST_NAME
    try:
        size_bytes = manifest_path.stat().st_size
        if size_bytes > MAX_MANIFEST_BYTES:
            raise PackageError(f"{MANIFEST_NAME}: {size_bytes} bytes exceed {MAX_MANIFEST_BYTES}")
        data = manifest_path.read_bytes()
    except OSError as error:
        raise PackageError(f"{manifest_path}: cannot be read: {error.strerror}") from error
    manifest = _parse_manifest(data)
    _check_listing(path, manifest)
    total = sum(file.size_bytes for file in manifest.files)
    done = 0
    for file in manifest.files:
        _check_file(path / file.name, file)

        def report(count: int, name: str = file.name, before: int = done) -> None:
            if progress is not None:
                progress(f"checking {name}", before + count, total)

        if _digest(path / file.name, report) != file.sha256:
            raise PackageError(f"{file.name}: SHA-256 differs from the manifest's")
        done += file.size_bytes
    package = ModelPackage(path, manifest, tagged_hash(MODEL_TAG, data))
    _check_config(package)
    return package


def _check_config(package: ModelPackage) -> None:
    config, manifest = package.config(), package.manifest
    for name in ("architecture", "context_tokens", "vocabulary", "parameters"):
        said, found = getattr(manifest, name), getattr(config, name)
        if said != found:
            raise PackageError(f"{MANIFEST_NAME}: {name} is {said!r}, {CONFIG_NAME} says {found!r}")


def _check_listing(path: Path, manifest: Manifest) -> None:
    expected = {file.name for file in manifest.files} | {MANIFEST_NAME}
    present = {entry.name for entry in path.iterdir()}
    for name in sorted(expected - present):
        raise PackageError(f"{name}: named by the manifest but missing")
    for name in sorted(present - expected):
        raise PackageError(f"{name}: not named by the manifest; remove it")


def _check_file(path: Path, file: PackageFile) -> None:
    if path.is_symlink() or not path.is_file():
        raise PackageError(f"{file.name}: not a regular file")
    size_bytes = path.stat().st_size
    if size_bytes != file.size_bytes:
        raise PackageError(f"{file.name}: {size_bytes} bytes, the manifest says {file.size_bytes}")


def _digest(path: Path, report: Callable[[int], None] | None) -> bytes:
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if report is not None:
                report(done)
    return digest.digest()


def _parse_manifest(data: bytes) -> Manifest:
    try:
        values = json.loads(data)
    except ValueError as error:
        raise PackageError(f"{MANIFEST_NAME}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise PackageError(f"{MANIFEST_NAME}: holds no JSON object")
    if values.get("format") != MANIFEST_FORMAT:
        raise PackageError(
            f"{MANIFEST_NAME}: format {values.get('format')!r}, readable is {MANIFEST_FORMAT}"
        )
    kinds = {
        "name": str,
        "architecture": str,
        "quantization": str,
        "engine_profiles": list,
        "context_tokens": int,
        "vocabulary": int,
        "parameters": int,
        "files": list,
    }
    _check_fields(values, {"format": int, **kinds}, "the manifest")
    profiles = values["engine_profiles"]
    if not profiles or not all(isinstance(profile, str) for profile in profiles):
        raise PackageError(f"{MANIFEST_NAME}: engine_profiles must name at least one profile")
    if len(values["files"]) > MAX_FILES:
        raise PackageError(f"{MANIFEST_NAME}: names more than {MAX_FILES} files")
    files = tuple(_parse_file(entry) for entry in values["files"])
    names = [file.name for file in files]
    if len(set(names)) != len(names):
        raise PackageError(f"{MANIFEST_NAME}: names a file twice")
    for name in (CONFIG_NAME, TOKENIZER_NAME, TEMPLATE_NAME):
        if name not in names:
            raise PackageError(f"{MANIFEST_NAME}: does not name {name}")
    fields = {key: values[key] for key in kinds if key not in ("engine_profiles", "files")}
    return Manifest(**fields, engine_profiles=tuple(profiles), files=files)


def _check_fields(values: Any, kinds: dict[str, type], what: str) -> None:
    if not isinstance(values, dict) or values.keys() != kinds.keys():
        raise PackageError(f"{MANIFEST_NAME}: {what} must have exactly {', '.join(kinds)}")
    for name, kind in kinds.items():
        if type(values[name]) is not kind:
            raise PackageError(f"{MANIFEST_NAME}: {name} is {values[name]!r}, no {kind.__name__}")


def _parse_file(entry: Any) -> PackageFile:
    _check_fields(entry, {"name": str, "sha256": str, "size_bytes": int}, "an entry of files")
    name, digest = entry["name"], entry["sha256"]
    if not _FILE_NAME.fullmatch(name) or name == MANIFEST_NAME:
        raise PackageError(f"{MANIFEST_NAME}: {name!r} is no name for a file of a package")
    if not _SHA256_HEX.fullmatch(digest) or entry["size_bytes"] < 0:
        raise PackageError(f"{MANIFEST_NAME}: digest or size of {name} is malformed")
    return PackageFile(name, entry["size_bytes"], bytes.fromhex(digest))
