"""A reader for GGUF files: metadata and where the tensors lie. (The format's own description is in
ggml's docs.)

Little-endian throughout: magic, version, counts, then typed metadata, then tensor records, then
the values of the tensors, aligned. Every count is checked against the bytes that are left before
anything is read by it.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from runtime.errors import PackageError

_MAGIC = 0x46554747
_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_Q8_0_BLOCK = 32


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor record."""

    shape: tuple[int, ...]
    """Slowest dimension first: [outputs, inputs]."""
    kind: GGMLQuantizationType
    start: int
    size_bytes: int


class GgufFile:
    """Metadata and tensors of a GGUF file. Raises PackageError for a file that is damaged."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, GgufTensor] = {}
        try:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise PackageError(f"{path.name}: cannot be read: {error}") from error
        self._offset = 0
        try:
            self._parse()
        except (struct.error, UnicodeDecodeError, KeyError) as error:
            raise PackageError(
                f"{path.name}: damaged GGUF near byte {self._offset}: {error}"
            ) from error

    def values(self, name: str) -> np.ndarray:
        """float32 values of a tensor in its shape. Raises PackageError."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise PackageError(f"{self._name}: tensor {name} is missing")
        raw = np.frombuffer(self._data, np.uint8, tensor.size_bytes, tensor.start)
        plain = {GGMLQuantizationType.F32: "<f4", GGMLQuantizationType.F16: "<f2"}.get(tensor.kind)
        if plain is not None:
            return raw.view(plain).astype(np.float32).reshape(tensor.shape)
        rows = raw.reshape(*tensor.shape[:-1], -1)
        try:
            return dequantize(rows, tensor.kind).reshape(tensor.shape)
        except NotImplementedError as error:
            raise PackageError(
                f"{self._name}: tensor {name} has quantization {tensor.kind.name}, "
                "for which there is no exact reader"
            ) from error

    def quantized(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """(int8[outputs, inputs], scales float32[outputs, inputs / 32]) of a Q8_0 tensor or None.

        Scale times integer in float32 is the value that `values` gives.
        """
        tensor = self.tensors.get(name)
        if tensor is None or tensor.kind is not GGMLQuantizationType.Q8_0:
            return None
        raw = np.frombuffer(self._data, np.uint8, tensor.size_bytes, tensor.start)
        # A block is a 16-bit float and 32 integers.
        blocks = raw.reshape(*tensor.shape[:-1], -1, 2 + _Q8_0_BLOCK)
        scales = blocks[..., :2].copy().view("<f2")[..., 0].astype(np.float32)
        return blocks[..., 2:].view(np.int8).reshape(tensor.shape), scales

    def _parse(self) -> None:
        if self._scalar("<I") != _MAGIC:
            raise PackageError(f"{self._name}: not a GGUF file")
        version = self._scalar("<I")
        if version not in _VERSIONS:
            raise PackageError(f"{self._name}: GGUF version {version}, readable are {_VERSIONS}")
        tensor_count, metadata_count = self._scalar("<Q"), self._scalar("<Q")
        self._check_count(tensor_count)
        self._check_count(metadata_count)
        for _ in range(metadata_count):
            key = self._text()
            self.metadata[key] = self._value(self._scalar("<I"))
        records = [self._record() for _ in range(tensor_count)]
        alignment = self.metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise PackageError(f"{self._name}: alignment is {alignment!r}")
        values_at = -(-self._offset // alignment) * alignment
        for name, shape, kind, offset in records:
            self.tensors[name] = self._tensor(name, shape, kind, values_at + offset)

    def _record(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text()
        dimensions = self._scalar("<I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise PackageError(f"{self._name}: tensor {name} has {dimensions} dimensions")
        shape = tuple(self._scalar("<Q") for _ in range(dimensions))
        return name, shape[::-1], self._scalar("<I"), self._scalar("<Q")

    def _tensor(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> GgufTensor:
        try:
            quantization = GGMLQuantizationType(kind)
        except ValueError as error:
            raise PackageError(f"{self._name}: tensor {name} has unknown type {kind}") from error
        block_values, block_bytes = GGML_QUANT_SIZES[quantization]
        if shape[-1] % block_values:
            raise PackageError(f"{self._name}: rows of tensor {name} are no whole number of blocks")
        size_bytes = math.prod(shape) // block_values * block_bytes
        if start + size_bytes > len(self._data):
            raise PackageError(f"{self._name}: tensor {name} reaches beyond the end of the file")
        return GgufTensor(shape, quantization, start, size_bytes)

    def _check_count(self, count: int) -> None:
        if count > len(self._data) - self._offset:
            raise PackageError(
                f"{self._name}: count {count} near byte {self._offset} exceeds the file"
            )

    def _scalar(self, layout: str) -> Any:
        (value,) = struct.unpack_from(layout, self._data, self._offset)
        self._offset += struct.calcsize(layout)
        return value

    def _text(self) -> str:
        size = self._scalar("<Q")
        self._check_count(size)
        start = self._offset
        self._offset += size
        return self._data[start : self._offset].decode()

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._scalar(_SCALARS[kind])
        element, count = self._scalar("<I"), self._scalar("<Q")
        self._check_count(count)
        if element == _STRING:
            return [self._text() for _ in range(count)]
        layout = _SCALARS[element]
        size = struct.calcsize(layout) * count
        self._check_count(size)
        values = np.frombuffer(self._data, layout, count, self._offset).tolist()
        self._offset += size
        return values
