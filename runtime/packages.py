"""Model packages: a directory whose manifest names every file with its SHA-256.

    manifest.json        canonical JSON; its tagged hash is the model id that goes on chain
    config.json          dimensions of the model, as the engine needs them
    tokenizer.json       Hugging Face `tokenizers` format
    chat_template.jinja  empty when the model has no chat format
    model.gguf           or *.safetensors, byte for byte as they came

`pack` makes one from a GGUF file or a Hugging Face directory; `load` refuses one that differs from its
manifest by a byte, by a missing file or by a file too many, and names the file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MANIFEST_NAME = "manifest.json"

ProgressCallback = Callable[[str, int, int], None]
"""Called with (what is being done, bytes done, bytes in all)."""


class PackageError(Exception):
    """A package, or the source of one, is not usable; the message names the file."""


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


def pack(source: Path, output: Path, progress: ProgressCallback | None = None) -> ModelPackage:
    """Make a package at `output` (must not exist) from a GGUF file or a Hugging Face directory.

    Raises PackageError.
    """
    raise NotImplementedError


def load(path: Path, progress: ProgressCallback | None = None) -> ModelPackage:
    """Check every file of the package against its manifest. Raises PackageError naming the file."""
    raise NotImplementedError
