"""Altered weights, as a provider who saves money would use them, packed next to the true ones.

Rounding touches the matrices of the layers and leaves embedding, head and norms alone, as common
weight-only quantizers do: that is the fraud which is cheapest to commit and hardest to see.
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from runtime.errors import PackageError
from runtime.model_config import ModelConfig
from runtime.packages import ModelPackage, ProgressCallback, load, write_package
from runtime.sources import TEMPLATE_NAME, TOKENIZER_NAME, Source

WEIGHTS_NAME = "model.safetensors"
LAYER_PREFIX = "model.layers."
INT8_LARGEST = 127
INT4_LARGEST = 7
E4M3_LARGEST = 448.0
E4M3_LEAST_EXPONENT = -6
E4M3_MANTISSA_BITS = 3


def round_integer(matrix: np.ndarray, largest: int) -> np.ndarray:
    """Each row to integers from -largest to largest times one scale; float32 in, float32 out."""
    scale = np.abs(matrix).max(axis=1, keepdims=True) / np.float32(largest)
    scale[scale == 0] = 1
    rounded: np.ndarray = np.clip(np.rint(matrix / scale), -largest, largest) * scale
    return rounded.astype(np.float32, copy=False)


def round_e4m3(matrix: np.ndarray) -> np.ndarray:
    """Each row to the 8-bit floats E4M3 (largest 448, subnormals of 2^-9) times one scale."""
    scale = np.abs(matrix).max(axis=1, keepdims=True) / np.float32(E4M3_LARGEST)
    scale[scale == 0] = 1
    scaled = (matrix / scale).astype(np.float64)
    _, exponents = np.frexp(scaled)
    # frexp's mantissa lies in [1/2, 1), so the leading bit is worth 2^(exponent - 1).
    exponents = np.maximum(exponents - 1, E4M3_LEAST_EXPONENT)
    steps = np.ldexp(1.0, exponents - E4M3_MANTISSA_BITS)
    rounded: np.ndarray = np.clip(np.rint(scaled / steps) * steps, -E4M3_LARGEST, E4M3_LARGEST)
    restored: np.ndarray = rounded * scale
    return restored.astype(np.float32)


class Alteration(Protocol):
    """A change of a model's weights."""

    @property
    def name(self) -> str:
        """What reports call it; also the name of the package's directory."""
        ...

    def layers(self, count: int) -> list[int]:
        """Which of `count` layers are kept, in order."""
        ...

    def tensor(self, name: str, values: np.ndarray) -> np.ndarray:
        """The altered float32 values of a tensor, by its name in the true model."""
        ...


def _is_layer_matrix(name: str, values: np.ndarray) -> bool:
    return name.startswith(LAYER_PREFIX) and values.ndim == 2


@dataclass(frozen=True, slots=True)
class Rounded:
    """Layer matrices rounded for each output channel: int8, int4 or fp8 (E4M3)."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in ("int8", "int4", "fp8"):
            raise ValueError(f"rounding {self.name!r}; known are int8, int4, fp8")

    def layers(self, count: int) -> list[int]:
        """All."""
        return list(range(count))

    def tensor(self, name: str, values: np.ndarray) -> np.ndarray:
        """See `Alteration.tensor`."""
        if not _is_layer_matrix(name, values):
            return values
        if self.name == "fp8":
            return round_e4m3(values)
        return round_integer(values, INT8_LARGEST if self.name == "int8" else INT4_LARGEST)


@dataclass(frozen=True, slots=True)
class Noisy:
    """Normal noise on layer matrices, a thousandth part of each row's root mean square at a time.

    Stands for weights that were fine-tuned a little, or damaged.
    """

    relative_milli: int = 10
    name: str = "noise"

    def layers(self, count: int) -> list[int]:
        """All."""
        return list(range(count))

    def tensor(self, name: str, values: np.ndarray) -> np.ndarray:
        """See `Alteration.tensor`."""
        if not _is_layer_matrix(name, values):
            return values
        source = np.random.default_rng(zlib.crc32(name.encode()))
        size = np.sqrt(np.mean(np.square(values), axis=1, keepdims=True))
        noise = source.standard_normal(values.shape) * (size * self.relative_milli / 1000)
        altered: np.ndarray = values + noise
        return altered.astype(np.float32)


@dataclass(frozen=True, slots=True)
class DroppedLayer:
    """The layer in the middle is left out."""

    name: str = "dropped-layer"

    def layers(self, count: int) -> list[int]:
        """All but one; a model of one layer keeps it."""
        return [layer for layer in range(count) if count == 1 or layer != count // 2]

    def tensor(self, name: str, values: np.ndarray) -> np.ndarray:
        """Unchanged."""
        return values


@dataclass(frozen=True, slots=True)
class SmallerModel:
    """A model of half the depth passed off: every other layer of the true one."""

    name: str = "smaller-model"

    def layers(self, count: int) -> list[int]:
        """The first, the third, and so on."""
        return list(range(0, count, 2))

    def tensor(self, name: str, values: np.ndarray) -> np.ndarray:
        """Unchanged."""
        return values


@dataclass(frozen=True, slots=True)
class OtherModel:
    """Another model of the same shape and tokenizer: rows of every layer matrix are shuffled."""

    name: str = "other-model"

    def layers(self, count: int) -> list[int]:
        """All."""
        return list(range(count))

    def tensor(self, name: str, values: np.ndarray) -> np.ndarray:
        """See `Alteration.tensor`."""
        if not _is_layer_matrix(name, values):
            return values
        return np.random.default_rng(zlib.crc32(name.encode())).permutation(values)


def alter_package(
    package: ModelPackage,
    alteration: Alteration,
    output: Path,
    progress: ProgressCallback | None = None,
) -> ModelPackage:
    """The altered package at `output`; one that is there already is checked and used.

    Raises PackageError.
    """
    if output.exists():
        altered = load(output, progress)
        if altered.manifest.name != _altered_name(package, alteration):
            raise PackageError(f"{output}: holds {altered.manifest.name}, not what was asked for")
        return altered
    config = package.config()
    kept = alteration.layers(config.layers)
    weights = output.with_name(f"{output.name}.weights.part")
    weights.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write_weights(package, alteration, kept, weights, progress)
        contents = Source(
            name=_altered_name(package, alteration),
            quantization="float32",
            config=replace(config, layers=len(kept)),
            tokenizer_json=package.file_bytes(TOKENIZER_NAME),
            chat_template=package.file_bytes(TEMPLATE_NAME).decode(),
            weights=((WEIGHTS_NAME, weights),),
        )
        return write_package(contents, output, progress)
    finally:
        weights.unlink(missing_ok=True)


def _altered_name(package: ModelPackage, alteration: Alteration) -> str:
    return f"{package.manifest.name}+{alteration.name}+{package.model_id.hex()[:16]}"


def _kept_tensors(
    package: ModelPackage, alteration: Alteration, config: ModelConfig, kept: list[int]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """(name in the altered model, name in the true one, altered values)."""
    source = package.tensors()
    place = {layer: index for index, layer in enumerate(kept)}
    for name in sorted(source.names()):
        new_name = name
        if name.startswith(LAYER_PREFIX):
            layer_text, _, rest = name.removeprefix(LAYER_PREFIX).partition(".")
            if int(layer_text) not in place or int(layer_text) >= config.layers:
                continue
            new_name = f"{LAYER_PREFIX}{place[int(layer_text)]}.{rest}"
        yield new_name, name, alteration.tensor(name, source.read(name))


def _write_weights(
    package: ModelPackage,
    alteration: Alteration,
    kept: list[int],
    path: Path,
    progress: ProgressCallback | None,
) -> None:
    """One safetensors file of float32 values; goes over the tensors twice to hold one at a time."""
    config = package.config()
    header: dict[str, Any] = {}
    end = 0
    for name, _, values in _kept_tensors(package, alteration, config, kept):
        start, end = end, end + 4 * values.size
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for done, (_, _, values) in enumerate(
            _kept_tensors(package, alteration, config, kept), start=1
        ):
            file.write(np.ascontiguousarray(values, dtype="<f4").tobytes())
            if progress is not None:
                progress(f"altering weights: {alteration.name}", done, len(header))
