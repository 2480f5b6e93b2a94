"""Where an engine gets weights from: named float32 tensors of a GGUF file or of safetensors files.

Names are those of Hugging Face Llama checkpoints for every source. Values are exact: a quantized
value is scale * integer + offset in float32 as its format defines, a 16-bit float widens without
rounding.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from runtime.errors import PackageError
from runtime.gguf_file import GgufFile

_GGUF_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_GGUF_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


class TensorSource(Protocol):
    """Named float32 tensors."""

    def names(self) -> set[str]:
        """Names of all tensors there are."""
        ...

    def read(self, name: str) -> np.ndarray:
        """float32 values, [outputs, inputs] or [size]. Raises PackageError naming tensor and
        file."""
        ...


@dataclass(frozen=True, slots=True)
class Quantized:
    """A matrix as integers with one scale for each 32 neighbours in a row."""

    quants: np.ndarray
    """int8[outputs, inputs]."""
    scales: np.ndarray
    """float32[outputs, inputs / 32]; a weight is the float32 product of the two."""


@runtime_checkable
class QuantizedSource(TensorSource, Protocol):
    """A source some of whose tensors are stored as `Quantized`."""

    def read_quantized(self, name: str) -> Quantized | None:
        """The tensor as it is stored, or None where that is another format. Raises PackageError."""
        ...


class GgufTensors:
    """Tensors of one GGUF file."""

    def __init__(self, path: Path, architecture: str, heads: int, kv_heads: int) -> None:
        self._file = GgufFile(path)
        # GGUF files of the llama architecture order query and key rows for rotating neighbours
        # (2i, 2i + 1); engines here rotate halves (i, i + d/2), as the original checkpoints do.
        self._interleaved = {"q_proj": heads, "k_proj": kv_heads} if architecture == "llama" else {}

    def names(self) -> set[str]:
        """See `TensorSource.names`."""
        return {_original_name(name) for name in self._file.tensors}

    def read(self, name: str) -> np.ndarray:
        """See `TensorSource.read`."""
        return self._in_order(name, self._file.values(_gguf_name(name)))

    def read_quantized(self, name: str) -> Quantized | None:
        """See `QuantizedSource.read_quantized`."""
        found = self._file.quantized(_gguf_name(name))
        if found is None:
            return None
        return Quantized(*(self._in_order(name, values) for values in found))

    def _in_order(self, name: str, values: np.ndarray) -> np.ndarray:
        for part, heads in self._interleaved.items():
            if part in name:
                pairs = values.shape[0] // heads // 2
                grouped = values.reshape(heads, pairs, 2, -1).swapaxes(1, 2)
                return grouped.reshape(values.shape)
        return values


def _gguf_name(name: str) -> str:
    if name in _GGUF_NAMES:
        return _GGUF_NAMES[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    part, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{_GGUF_LAYER_NAMES[part]}.{kind}"


def _original_name(gguf_name: str) -> str:
    for name, short in _GGUF_NAMES.items():
        if short == gguf_name:
            return name
    if gguf_name.startswith("blk."):
        layer, _, rest = gguf_name.removeprefix("blk.").partition(".")
        part, _, kind = rest.rpartition(".")
        for name, short in _GGUF_LAYER_NAMES.items():
            if short == part:
                return f"model.layers.{layer}.{name}.{kind}"
    return gguf_name


_HEADER_SIZE_BYTES = 8
MAX_SAFETENSORS_HEADER_BYTES = 100_000_000
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True)
class _Place:
    path: Path
    kind: str
    shape: tuple[int, ...]
    start: int


class SafetensorsTensors:
    """Tensors of one or more safetensors files: an 8-byte length, a JSON header, the raw values."""

    def __init__(self, paths: list[Path]) -> None:
        self._places: dict[str, _Place] = {}
        for path in paths:
            for name, place in _safetensors_places(path).items():
                if name in self._places:
                    raise PackageError(f"{path.name}: tensor {name} is also in another file")
                self._places[name] = place

    def names(self) -> set[str]:
        """See `TensorSource.names`."""
        return set(self._places)

    def read(self, name: str) -> np.ndarray:
        """See `TensorSource.read`."""
        place = self._places.get(name)
        if place is None:
            raise PackageError(f"safetensors files: tensor {name} is missing")
        dtype = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[place.kind]
        count = math.prod(place.shape)
        raw = np.fromfile(place.path, dtype=dtype, count=count, offset=place.start)
        if place.kind == "BF16":
            # A bfloat16 is the upper half of a float32.
            raw = (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return raw.astype(np.float32, copy=False).reshape(place.shape)


def _safetensors_places(path: Path) -> dict[str, _Place]:
    total = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(_HEADER_SIZE_BYTES), "little")
        data_start = _HEADER_SIZE_BYTES + header_bytes
        if header_bytes > MAX_SAFETENSORS_HEADER_BYTES or data_start > total:
            raise PackageError(f"{path.name}: header of {header_bytes} bytes does not fit the file")
        try:
            header = json.loads(file.read(header_bytes))
        except ValueError as error:
            raise PackageError(f"{path.name}: header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise PackageError(f"{path.name}: header is no JSON object")
    header.pop("__metadata__", None)
    return {
        name: _safetensors_place(path, name, entry, data_start, total)
        for name, entry in header.items()
    }


def _safetensors_place(path: Path, name: str, entry: Any, data_start: int, total: int) -> _Place:
    try:
        kind, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
        start, end = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(f"{path.name}: header of tensor {name} is damaged") from error
    if kind not in _ITEM_BYTES:
        raise PackageError(
            f"{path.name}: tensor {name} has type {kind}, readable are {', '.join(_ITEM_BYTES)}"
        )
    size = math.prod(shape) * _ITEM_BYTES[kind]
    if min(shape, default=1) < 0 or start < 0 or end - start != size or data_start + end > total:
        raise PackageError(f"{path.name}: tensor {name} lies outside the file or has a wrong size")
    return _Place(path, kind, shape, data_start + start)
