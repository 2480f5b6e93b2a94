"""A Llama-family model small enough to build in a moment, with random weights and a byte
tokenizer."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from runtime.packages import ModelPackage, pack
from runtime.tokenizer import byte_alphabet

SPECIAL_TOKENS = ("<|end|>", "<|begin|>", "<|turn|>")
TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message['role'] }}\n"
    "{{ message['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class TinyModel:
    """Dimensions; every default is odd enough to show a mixed-up stride."""

    layers: int = 2
    width: int = 48
    heads: int = 6
    kv_heads: int = 2
    head_width: int = 16
    feed_width: int = 80
    context_tokens: int = 96
    rope_base: float = 10_000.0
    tied: bool = False
    bias: bool = False
    qk_norm: bool = False
    rope_divisors: tuple[float, ...] = ()
    """GGUF only."""
    stored_as_q8: bool = False
    """GGUF only: matrices as Q8_0."""
    seed: int = 7

    @property
    def tokens(self) -> list[str]:
        """Special tokens, the 256 bytes, and two merged tokens: 261, no multiple of 16."""
        return [*SPECIAL_TOKENS, *sorted(byte_alphabet()), "th", "the"]

    @property
    def architecture(self) -> str:
        if self.qk_norm:
            return "qwen3"
        return "qwen2" if self.bias else "llama"

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights by their Hugging Face names."""
        random = np.random.default_rng(self.seed)

        def matrix(outputs: int, inputs: int) -> np.ndarray:
            values: np.ndarray = random.standard_normal((outputs, inputs)) / inputs**0.5
            return values.astype(np.float32)

        def gain(size: int = self.width) -> np.ndarray:
            return (1 + 0.1 * random.standard_normal(size)).astype(np.float32)

        query, kv = self.heads * self.head_width, self.kv_heads * self.head_width
        found = {
            "model.embed_tokens.weight": matrix(len(self.tokens), self.width) * 5,
            "model.norm.weight": gain(),
        }
        if not self.tied:
            found["lm_head.weight"] = matrix(len(self.tokens), self.width) * 3
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            for name, outputs in (("q_proj", query), ("k_proj", kv), ("v_proj", kv)):
                found[f"{prefix}self_attn.{name}.weight"] = matrix(outputs, self.width) * 2
                if self.bias:
                    found[f"{prefix}self_attn.{name}.bias"] = matrix(1, outputs)[0]
                if self.qk_norm and name != "v_proj":
                    norm = name.replace("proj", "norm")
                    found[f"{prefix}self_attn.{norm}.weight"] = gain(self.head_width)
            found[prefix + "self_attn.o_proj.weight"] = matrix(self.width, query)
            found[prefix + "mlp.gate_proj.weight"] = matrix(self.feed_width, self.width)
            found[prefix + "mlp.up_proj.weight"] = matrix(self.feed_width, self.width)
            found[prefix + "mlp.down_proj.weight"] = matrix(self.width, self.feed_width)
            found[prefix + "input_layernorm.weight"] = gain()
            found[prefix + "post_attention_layernorm.weight"] = gain()
        return found

    def tokenizer_json(self) -> dict[str, Any]:
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": index,
                    "content": token,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
                for index, token in enumerate(SPECIAL_TOKENS)
            ],
            "normalizer": None,
            "pre_tokenizer": {**level, "use_regex": True},
            "post_processor": None,
            "decoder": {**level, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {token: index for index, token in enumerate(self.tokens)},
                "merges": [["t", "h"], ["th", "e"]],
            },
        }


def write_gguf(model: TinyModel, path: Path) -> Path:
    """The model as a GGUF file, as llama.cpp's converter would order it."""
    writer = gguf.GGUFWriter(path, model.architecture)
    writer.add_name("tiny")
    writer.add_block_count(model.layers)
    writer.add_context_length(model.context_tokens)
    writer.add_embedding_length(model.width)
    writer.add_feed_forward_length(model.feed_width)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_key_length(model.head_width)
    writer.add_rope_freq_base(model.rope_base)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(model.tokens)
    writer.add_token_types([3] * len(SPECIAL_TOKENS) + [1] * (len(model.tokens) - 3))
    writer.add_token_merges(["t h", "th e"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
    for name, values in model.tensors().items():
        ordered = _gguf_order(model, name, values)
        if model.stored_as_q8 and values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            ordered = gguf.quants.quantize(np.ascontiguousarray(ordered), kind)
            writer.add_tensor(_gguf_name(name), ordered, raw_dtype=kind)
        else:
            writer.add_tensor(_gguf_name(name), ordered)
    if model.rope_divisors:
        writer.add_tensor("rope_freqs.weight", np.array(model.rope_divisors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(name: str) -> str:
    for long, short in (
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.", "attn_"),
        ("_proj", ""),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.", "ffn_"),
    ):
        name = name.replace(long, short)
    return name


def _gguf_order(model: TinyModel, name: str, values: np.ndarray) -> np.ndarray:
    heads = {"q_proj": model.heads, "k_proj": model.kv_heads}.get(name.split(".")[-2], 0)
    if not heads or model.architecture != "llama":
        return values
    half = values.shape[0] // heads // 2
    return values.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(values.shape)


def write_directory(model: TinyModel, path: Path) -> Path:
    """The model as a Hugging Face directory with one safetensors file."""
    path.mkdir()
    settings = {
        "model_type": model.architecture,
        "hidden_size": model.width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_width,
        "intermediate_size": model.feed_width,
        "vocab_size": len(model.tokens),
        "max_position_embeddings": model.context_tokens,
        "rope_theta": model.rope_base,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": model.tied,
        "eos_token_id": 0,
        "torch_dtype": "float32",
    }
    (path / "config.json").write_text(json.dumps(settings))
    tokenizer = model.tokenizer_json()
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|begin|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [1], "tokens": ["<|begin|>"]}},
    }
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (path / "chat_template.jinja").write_text(TEMPLATE)
    write_safetensors(model.tensors(), path / "model.safetensors")
    return path


def write_safetensors(tensors: dict[str, np.ndarray], path: Path) -> None:
    header: dict[str, Any] = {}
    offset = 0
    for name, values in tensors.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(values.shape),
            "data_offsets": [offset, offset + values.nbytes],
        }
        offset += values.nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(values.tobytes())


def tiny_package(folder: Path, model: TinyModel | None = None) -> ModelPackage:
    """A package of the model, packed from GGUF."""
    return pack(write_gguf(model or TinyModel(), folder / "tiny.gguf"), folder / "package")
