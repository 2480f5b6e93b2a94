"""A package's weights as vLLM reads them: a directory with config.json and safetensors.

It is made once from a verified package and kept in a cache under the model's id. `export.json`
names each file with its SHA-256; every start checks them, and an export that differs is made again.
GGUF weights are written as the float32 values they stand for: vLLM rounds them to the precision it
serves in. Weights that are safetensors already are linked, not copied.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np

from runtime.gguf_file import GgufFile
from runtime.model_config import ModelConfig, canonical_json
from runtime.packages import GGUF_NAME, ModelPackage, PackageError, ProgressCallback
from runtime.sources import TOKENIZER_NAME

EXPORT_NAME: Final = "export.json"
EXPORT_FORMAT: Final = 1
WEIGHTS_NAME: Final = "model.safetensors"
MAX_EXPORT_JSON_BYTES: Final = 1 << 20
SPARE_POSITIONS: Final = 8
"""vLLM wants room for one token after a claim that fills the whole context."""
SAFETENSORS_ALIGNMENT: Final = 8
CHUNK_BYTES: Final = 1 << 22

_ARCHITECTURES: Final = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_FLOAT_KINDS: Final = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def default_directory() -> Path:
    """Where exports are kept unless told otherwise."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "assay" / "vllm"


def export(
    package: ModelPackage, directory: Path | None, progress: ProgressCallback | None = None
) -> Path:
    """The directory vLLM may load for this package, made if it is missing or differs.

    Raises PackageError, also when the weights are not quantized as the manifest says.
    """
    check_quantization(package)
    target = (directory or default_directory()) / package.model_id.hex()
    if _is_whole(target, package, progress):
        return target
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write(package, partial, progress)
        shutil.rmtree(target, ignore_errors=True)
        try:
            partial.rename(target)
        except OSError as error:
            # Another process may have put the same export there in the meantime.
            if not _is_whole(target, package, progress):
                raise PackageError(f"{target}: cannot be put in place: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def check_quantization(package: ModelPackage) -> None:
    """Refuse weights that are not quantized as the manifest says. Raises PackageError."""
    said = package.manifest.quantization
    found = _weights_kind(package)
    if _FLOAT_KINDS.get(said, said) != found and not said.startswith("GGUF-"):
        raise PackageError(f"the weights are {found}, the manifest says {said}")


def _weights_kind(package: ModelPackage) -> str:
    """The type in which most of the weights are stored."""
    names = [file.name for file in package.manifest.files]
    sizes: Counter[str] = Counter()
    if GGUF_NAME in names:
        for tensor in GgufFile(package.path / GGUF_NAME).tensors.values():
            sizes[tensor.kind.name] += tensor.size_bytes
    else:
        for name in names:
            if name.endswith(".safetensors"):
                sizes.update(_safetensors_kinds(package.path / name))
    if not sizes:
        raise PackageError(f"{package.manifest.name}: holds no weights")
    return sizes.most_common(1)[0][0]


def _safetensors_kinds(path: Path) -> dict[str, int]:
    with path.open("rb") as file:
        size_bytes = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(size_bytes))
            header.pop("__metadata__", None)
            sizes: Counter[str] = Counter()
            for entry in header.values():
                start, end = entry["data_offsets"]
                sizes[entry["dtype"]] += end - start
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PackageError(f"{path.name}: header is damaged: {error!r}") from error
    return sizes


def vllm_config_json(config: ModelConfig) -> bytes:
    """config.json of a Hugging Face checkpoint of this shape. Raises PackageError."""
    architecture = _ARCHITECTURES.get(config.architecture)
    if architecture is None:
        known = ", ".join(_ARCHITECTURES)
        raise PackageError(f"architecture {config.architecture!r}; vLLM is given only {known}")
    if config.rope_divisors:
        raise PackageError("stretched rotary embeddings are not served by vLLM yet")
    return canonical_json(
        {
            "architectures": [architecture],
            "model_type": config.architecture,
            "hidden_act": "silu",
            "hidden_size": config.width,
            "intermediate_size": config.feed_width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads,
            "head_dim": config.head_width,
            "vocab_size": config.vocabulary,
            "max_position_embeddings": config.context_tokens + SPARE_POSITIONS,
            "rms_norm_eps": config.rms_epsilon,
            "rope_theta": config.rope_base,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
            "tie_word_embeddings": config.tied_embeddings,
            "attention_bias": config.qkv_bias,
            "sliding_window": None,
            "use_sliding_window": False,
            "bos_token_id": None,
            "eos_token_id": list(config.end_token_ids),
            "torch_dtype": "float32",
        }
    )


def _write(package: ModelPackage, folder: Path, progress: ProgressCallback | None) -> None:
    (folder / "config.json").write_bytes(vllm_config_json(package.config()))
    (folder / TOKENIZER_NAME).write_bytes(package.file_bytes(TOKENIZER_NAME))
    digests = {name: _digest(folder / name) for name in ("config.json", TOKENIZER_NAME)}
    known = {file.name: file.sha256.hex() for file in package.manifest.files}
    if GGUF_NAME in known:
        digests[WEIGHTS_NAME] = _write_weights(package, folder / WEIGHTS_NAME, progress)
    else:
        for name, sha256 in known.items():
            if name.endswith(".safetensors"):
                (folder / name).symlink_to((package.path / name).resolve())
                digests[name] = sha256
    (folder / EXPORT_NAME).write_bytes(
        canonical_json({"format": EXPORT_FORMAT, "model": package.model_id.hex(), "files": digests})
    )


def _write_weights(package: ModelPackage, path: Path, progress: ProgressCallback | None) -> str:
    """Write every tensor as float32, one in memory at a time; returns the file's SHA-256."""
    source = package.tensors()
    names = sorted(source.names())
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        values = source.read(name)
        start, end = end, end + 4 * values.size
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [start, end]}
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-len(data) % SAFETENSORS_ALIGNMENT)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in (len(data).to_bytes(8, "little"), data):
            digest.update(part)
            file.write(part)
        for index, name in enumerate(names, start=1):
            raw = np.ascontiguousarray(source.read(name), dtype="<f4").tobytes()
            digest.update(raw)
            file.write(raw)
            if progress is not None:
                progress("writing weights for vLLM", index, len(names))
    return digest.hexdigest()


def _is_whole(folder: Path, package: ModelPackage, progress: ProgressCallback | None) -> bool:
    """Whether the export is of this package and every file has the digest it was made with."""
    try:
        if (folder / EXPORT_NAME).stat().st_size > MAX_EXPORT_JSON_BYTES:
            return False
        said = json.loads((folder / EXPORT_NAME).read_bytes())
        files = said["files"]
        if (said["format"], said["model"]) != (EXPORT_FORMAT, package.model_id.hex()):
            return False
        if {entry.name for entry in folder.iterdir()} != {*files, EXPORT_NAME}:
            return False
        for index, (name, digest) in enumerate(sorted(files.items()), start=1):
            if _digest(folder / name) != digest:
                return False
            if progress is not None:
                progress("checking weights for vLLM", index, len(files))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    # What config.json says follows from the package, so a forged digest of it is of no use.
    return (folder / "config.json").read_bytes() == vllm_config_json(package.config())


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
