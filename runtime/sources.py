"""What a package is made from: a GGUF file, or a directory as Hugging Face publishes models.

Both are turned into the same four things: config, tokenizer in `tokenizers` JSON, chat template,
weight files. Whatever an engine here could not run faithfully is refused now and not at the first
request.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from runtime.errors import PackageError
from runtime.gguf_file import GgufFile
from runtime.model_config import ModelConfig, canonical_json

TOKENIZER_NAME = "tokenizer.json"
TEMPLATE_NAME = "chat_template.jinja"

_GGUF_CONTROL, _GGUF_USER_DEFINED = 3, 4
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_PRE_TOKENIZERS: dict[str, Any] = {
    "gpt-2": {**_BYTE_LEVEL, "use_regex": True},
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {**_BYTE_LEVEL, "use_regex": True},
        ],
    },
}
"""By the GGUF key tokenizer.ggml.pre: how text is cut before byte pairs are merged."""
_FILE_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1"}
_ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
_GGUF_ARCHITECTURES = ("llama", "qwen2", "qwen3")
_GGUF_ROPE_DIVISORS = "rope_freqs.weight"
_DEFAULT_ROPE_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class Source:
    """A model ready to be packed."""

    name: str
    quantization: str
    config: ModelConfig
    tokenizer_json: bytes
    chat_template: str
    weights: tuple[tuple[str, Path], ...]
    """(name in the package, where it is now)."""


def read_source(path: Path) -> Source:
    """Read a GGUF file or a Hugging Face directory. Raises PackageError."""
    if path.is_dir():
        return _read_directory(path)
    if path.is_file():
        return _read_gguf(path)
    raise PackageError(f"{path}: no such file or directory")


def parse_tokenizer(tokenizer_json: bytes) -> Tokenizer:
    """A tokenizer of the `tokenizers` library. Raises PackageError."""
    try:
        return Tokenizer.from_str(tokenizer_json.decode())
    except Exception as error:
        # The library raises plain Exception, and nothing narrower, for what it cannot parse.
        raise PackageError(f"{TOKENIZER_NAME}: cannot be read: {error}") from error


class _Metadata:
    """Typed access to GGUF metadata."""

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self._name = name
        self._values = values

    def get(self, key: str, kind: Any, default: Any = None) -> Any:
        value = self._values.get(key, default)
        if not isinstance(value, kind):
            raise PackageError(f"{self._name}: metadata {key} is missing or of a wrong type")
        return value

    def has(self, key: str) -> bool:
        return key in self._values


def _read_gguf(path: Path) -> Source:
    file = GgufFile(path)
    metadata = _Metadata(path.name, file.metadata)
    architecture = metadata.get("general.architecture", str)
    if architecture not in _GGUF_ARCHITECTURES:
        known = ", ".join(_GGUF_ARCHITECTURES)
        raise PackageError(f"{path.name}: architecture {architecture!r}; known are {known}")
    if metadata.get(f"{architecture}.rope.scaling.type", str, "none") != "none":
        raise PackageError(f"{path.name}: this scaling of rotary embeddings is not supported")
    scaled = _GGUF_ROPE_DIVISORS in file.tensors
    divisors = file.values(_GGUF_ROPE_DIVISORS).tolist() if scaled else ()
    tokens = metadata.get("tokenizer.ggml.tokens", list)
    width = metadata.get(f"{architecture}.embedding_length", int)
    heads = metadata.get(f"{architecture}.attention.head_count", int)
    head_width = metadata.get(f"{architecture}.attention.key_length", int, width // max(heads, 1))
    end_id = metadata.get("tokenizer.ggml.eos_token_id", int)
    begin_id = metadata.get("tokenizer.ggml.bos_token_id", int, -1)
    end_ids = {end_id} | {
        metadata.get(key, int)
        for key in ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
        if metadata.has(key)
    }
    begins = metadata.get("tokenizer.ggml.add_bos_token", bool, False)
    config = ModelConfig(
        architecture=architecture,
        layers=metadata.get(f"{architecture}.block_count", int),
        width=width,
        heads=heads,
        kv_heads=metadata.get(f"{architecture}.attention.head_count_kv", int, heads),
        head_width=head_width,
        feed_width=metadata.get(f"{architecture}.feed_forward_length", int),
        vocabulary=len(tokens),
        context_tokens=metadata.get(f"{architecture}.context_length", int),
        rope_base=metadata.get(f"{architecture}.rope.freq_base", float, _DEFAULT_ROPE_BASE),
        rms_epsilon=metadata.get(f"{architecture}.attention.layer_norm_rms_epsilon", float),
        tied_embeddings="output.weight" not in file.tensors,
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
        begin_token_ids=(begin_id,) if begins else (),
        end_token_ids=tuple(sorted(end_ids)),
        begin_token=tokens[begin_id] if 0 <= begin_id < len(tokens) else "",
        end_token=tokens[end_id] if 0 <= end_id < len(tokens) else "",
        qk_norm="blk.0.attn_q_norm.weight" in file.tensors,
        rope_divisors=tuple(divisors),
    )
    file_type = metadata.get("general.file_type", int, -1)
    return Source(
        name=metadata.get("general.name", str, path.stem),
        quantization=_FILE_TYPES.get(file_type, f"GGUF-{file_type}"),
        config=config,
        tokenizer_json=_gguf_tokenizer(path.name, metadata, tokens),
        chat_template=metadata.get("tokenizer.chat_template", str, ""),
        weights=(("model.gguf", path),),
    )


def _gguf_tokenizer(name: str, metadata: _Metadata, tokens: list[str]) -> bytes:
    """tokenizer.json of a byte-level BPE tokenizer described by GGUF metadata."""
    kind = metadata.get("tokenizer.ggml.model", str)
    if kind != "gpt2":
        raise PackageError(f"{name}: tokenizer {kind!r}; supported is byte-level BPE ('gpt2')")
    pre = metadata.get("tokenizer.ggml.pre", str, "gpt-2")
    if pre not in _PRE_TOKENIZERS:
        known = ", ".join(_PRE_TOKENIZERS)
        raise PackageError(f"{name}: pre-tokenizer {pre!r}; known are {known}")
    token_types = metadata.get("tokenizer.ggml.token_type", list)
    if len(token_types) != len(tokens):
        raise PackageError(f"{name}: {len(tokens)} tokens but {len(token_types)} token types")
    added = [
        {
            "id": token_id,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": token_type == _GGUF_CONTROL,
        }
        for token_id, (token, token_type) in enumerate(zip(tokens, token_types, strict=True))
        if token_type in (_GGUF_CONTROL, _GGUF_USER_DEFINED)
    ]
    merges = [merge.split(" ", 1) for merge in metadata.get("tokenizer.ggml.merges", list)]
    return canonical_json(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": _PRE_TOKENIZERS[pre],
            "post_processor": None,
            "decoder": {**_BYTE_LEVEL, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {token: token_id for token_id, token in enumerate(tokens)},
                "merges": merges,
            },
        }
    )


def _read_json(path: Path, required: bool = True) -> dict[str, Any]:
    if not required and not path.exists():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PackageError(f"{path.name}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise PackageError(f"{path.name}: holds no JSON object")
    return value


def _read_directory(path: Path) -> Source:
    settings = _read_json(path / "config.json")
    tokenizer_settings = _read_json(path / "tokenizer_config.json", required=False)
    generation = _read_json(path / "generation_config.json", required=False)
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise PackageError(f"{path}: holds no *.safetensors file")
    try:
        tokenizer_json = (path / TOKENIZER_NAME).read_bytes()
    except OSError as error:
        raise PackageError(f"{TOKENIZER_NAME}: cannot be read: {error.strerror}") from error
    tokenizer = parse_tokenizer(tokenizer_json)
    template_path = path / TEMPLATE_NAME
    if template_path.exists():
        template = template_path.read_text(encoding="utf-8")
    else:
        template = tokenizer_settings.get("chat_template") or ""
    if not isinstance(template, str):
        raise PackageError("tokenizer_config.json: several chat templates; keep one")
    try:
        config = _directory_config(settings, tokenizer_settings, generation, tokenizer)
    except KeyError as error:
        raise PackageError(f"config.json: {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise PackageError(f"config.json: a value has a wrong type: {error}") from error
    return Source(
        name=path.resolve().name,
        quantization=str(settings.get("torch_dtype") or settings.get("dtype") or "unknown"),
        config=config,
        tokenizer_json=tokenizer_json,
        chat_template=template,
        weights=tuple((weight.name, weight) for weight in weights),
    )


def _directory_config(
    settings: dict[str, Any],
    tokenizer_settings: dict[str, Any],
    generation: dict[str, Any],
    tokenizer: Tokenizer,
) -> ModelConfig:
    architecture = settings["model_type"]
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    refusals = (
        (architecture not in _ARCHITECTURES, f"model_type {architecture!r} is not supported"),
        (settings.get("hidden_act", "silu") != "silu", "only the silu activation is supported"),
        (bool(settings.get("mlp_bias")), "mlp_bias is not supported"),
        (bool(settings.get("attention_bias")), "attention_bias is not supported"),
        (
            _rope_type(rope) not in ("default", "llama3"),
            f"rotary embeddings scaled by rule {_rope_type(rope)!r} are not supported",
        ),
        (
            architecture == "mistral"
            and (settings.get("sliding_window") or math.inf) < settings["max_position_embeddings"],
            "sliding window attention is not supported",
        ),
        (bool(settings.get("use_sliding_window")), "sliding window attention is not supported"),
    )
    for refused, why in refusals:
        if refused:
            raise PackageError(f"config.json: {why}")
    heads = int(settings["num_attention_heads"])
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    framed = tokenizer.encode("a", add_special_tokens=True).ids
    if framed[len(framed) - len(plain) :] != plain:
        raise PackageError(f"{TOKENIZER_NAME}: puts tokens after a text, which is not supported")
    end_ids = generation.get("eos_token_id", settings.get("eos_token_id"))
    end_ids = end_ids if isinstance(end_ids, list) else [end_ids]
    head_width = int(settings.get("head_dim") or settings["hidden_size"] // heads)
    rope_base = float(rope.get("rope_theta") or settings.get("rope_theta", _DEFAULT_ROPE_BASE))
    return ModelConfig(
        architecture=architecture,
        layers=int(settings["num_hidden_layers"]),
        width=int(settings["hidden_size"]),
        heads=heads,
        kv_heads=int(settings.get("num_key_value_heads") or heads),
        head_width=head_width,
        feed_width=int(settings["intermediate_size"]),
        vocabulary=int(settings["vocab_size"]),
        context_tokens=int(settings["max_position_embeddings"]),
        rope_base=rope_base,
        rms_epsilon=float(settings["rms_norm_eps"]),
        tied_embeddings=bool(settings.get("tie_word_embeddings")),
        qkv_bias=architecture == "qwen2",
        begin_token_ids=tuple(framed[: len(framed) - len(plain)]),
        end_token_ids=tuple(sorted({int(token_id) for token_id in end_ids})),
        begin_token=_token_text(tokenizer_settings.get("bos_token")),
        end_token=_token_text(tokenizer_settings.get("eos_token")),
        qk_norm=architecture == "qwen3",
        rope_divisors=_llama3_divisors(rope, rope_base, head_width),
    )


def _rope_type(rope: dict[str, Any]) -> str:
    return str(rope.get("rope_type", rope.get("type", "default")))


def _llama3_divisors(rope: dict[str, Any], base: float, head_width: int) -> tuple[float, ...]:
    """Llama 3.1's stretching of rotary wavelengths for contexts longer than it was trained on.

    Waves much shorter than the original context stay, much longer ones are stretched by `factor`,
    those between by a mean of the two, weighted by how often they fit into that context.
    """
    if _rope_type(rope) == "default":
        return ()
    factor, original = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    if not (factor > 0 and original > 0 and 0 < low < high):
        raise PackageError("config.json: the numbers of the scaled rotary embedding make no sense")
    divisors = []
    for pair in range(head_width // 2):
        waves = original * base ** (-2 * pair / head_width) / math.tau
        share = min(max((waves - low) / (high - low), 0.0), 1.0)
        divisors.append(1.0 / ((1.0 - share) / factor + share))
    return tuple(divisors)


def _token_text(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
