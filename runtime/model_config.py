"""The dimensions and constants of a model: config.json of a package, in one form for every
source."""

import json
import math
from dataclasses import MISSING, dataclass, fields
from typing import Any

from runtime.errors import PackageError

CONFIG_NAME = "config.json"
WIDTH_MULTIPLE = 16
"""The engine packs weights in panels of 16 outputs."""
MAX_LAYERS = 512
MAX_WIDTH = 1 << 17
MAX_VOCABULARY = 1 << 20
MAX_CONTEXT_TOKENS = 1 << 20
MAX_END_TOKENS = 16


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A Llama-family model. Building one raises PackageError for a shape no engine here can run."""

    architecture: str
    """llama, mistral, qwen2 or qwen3."""
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    feed_width: int
    vocabulary: int
    context_tokens: int
    rope_base: float
    rms_epsilon: float
    tied_embeddings: bool
    qkv_bias: bool
    begin_token_ids: tuple[int, ...]
    """Put before raw text; a chat template writes its own."""
    end_token_ids: tuple[int, ...]
    """Any of these ends the output."""
    begin_token: str
    """What a template knows as bos_token; empty if none."""
    end_token: str
    # A field with a default is written to config.json only where it differs, so that packages made
    # before it was known keep their bytes and their id.
    qk_norm: bool = False
    """RMS norm of each query and key head before it is rotated."""
    rope_divisors: tuple[float, ...] = ()
    """What the rotary frequency of each pair of a head's components is divided by; empty for 1."""

    def __post_init__(self) -> None:
        bounds = (
            ("layers", self.layers, MAX_LAYERS),
            ("width", self.width, MAX_WIDTH),
            ("heads", self.heads, MAX_WIDTH),
            ("kv_heads", self.kv_heads, self.heads),
            ("head_width", self.head_width, MAX_WIDTH),
            ("feed_width", self.feed_width, MAX_WIDTH),
            ("vocabulary", self.vocabulary, MAX_VOCABULARY),
            ("context_tokens", self.context_tokens, MAX_CONTEXT_TOKENS),
        )
        for name, value, limit in bounds:
            if not 1 <= value <= limit:
                raise PackageError(f"{CONFIG_NAME}: {name} is {value}, allowed is 1 to {limit}")
        for name in ("width", "head_width", "feed_width"):
            if getattr(self, name) % WIDTH_MULTIPLE:
                raise PackageError(
                    f"{CONFIG_NAME}: {name} is {getattr(self, name)}, "
                    f"must be a multiple of {WIDTH_MULTIPLE}"
                )
        if self.heads % self.kv_heads:
            raise PackageError(
                f"{CONFIG_NAME}: {self.heads} heads do not divide among {self.kv_heads} kv_heads"
            )
        if not self.rope_base > 0 or not self.rms_epsilon > 0:
            raise PackageError(f"{CONFIG_NAME}: rope_base and rms_epsilon must be positive")
        if self.rope_divisors and len(self.rope_divisors) != self.head_width // 2:
            raise PackageError(
                f"{CONFIG_NAME}: {len(self.rope_divisors)} rope_divisors, "
                f"must be {self.head_width // 2}, one for each pair of a head"
            )
        if not all(math.isfinite(value) and value > 0 for value in self.rope_divisors):
            raise PackageError(f"{CONFIG_NAME}: rope_divisors must be positive and finite")
        if not self.end_token_ids:
            raise PackageError(f"{CONFIG_NAME}: no end_token_ids, so no output would ever end")
        if len(self.end_token_ids) > min(MAX_END_TOKENS, self.vocabulary - 1):
            raise PackageError(
                f"{CONFIG_NAME}: {len(self.end_token_ids)} end_token_ids, allowed are "
                f"{min(MAX_END_TOKENS, self.vocabulary - 1)}"
            )
        for token_id in (*self.begin_token_ids, *self.end_token_ids):
            if not 0 <= token_id < self.vocabulary:
                raise PackageError(
                    f"{CONFIG_NAME}: token id {token_id} is outside the vocabulary "
                    f"of {self.vocabulary}"
                )

    @property
    def qkv_width(self) -> int:
        """Query, key and value outputs of a layer."""
        return (self.heads + 2 * self.kv_heads) * self.head_width

    @property
    def parameters(self) -> int:
        """Number of weights, tied ones counted once."""
        query = self.heads * self.head_width
        layer = self.width * (self.qkv_width + query + 3 * self.feed_width) + 2 * self.width
        layer += self.qkv_width if self.qkv_bias else 0
        layer += 2 * self.head_width if self.qk_norm else 0
        tables = 1 if self.tied_embeddings else 2
        return self.layers * layer + tables * self.vocabulary * self.width + self.width


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, a line end."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return (text + "\n").encode()


def config_to_json(config: ModelConfig) -> bytes:
    """Bytes of config.json."""
    values = {
        field.name: value
        for field in fields(config)
        if (value := getattr(config, field.name)) != field.default
    }
    return canonical_json(values)


def config_from_json(data: bytes) -> ModelConfig:
    """The config in these bytes of config.json. Raises PackageError."""
    try:
        values = json.loads(data)
    except ValueError as error:
        raise PackageError(f"{CONFIG_NAME}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise PackageError(f"{CONFIG_NAME}: holds no JSON object")
    expected = {field.name: field.type for field in fields(ModelConfig)}
    optional = {field.name for field in fields(ModelConfig) if field.default is not MISSING}
    different = sorted((values.keys() ^ expected.keys()) - (optional - values.keys()))
    if different:
        raise PackageError(f"{CONFIG_NAME}: unknown or missing fields: {', '.join(different)}")
    return ModelConfig(
        **{name: _checked(name, expected[name], value) for name, value in values.items()}
    )


def _checked(name: str, kind: Any, value: Any) -> Any:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind == tuple[int, ...]:
        if isinstance(value, list) and all(type(item) is int for item in value):
            return tuple(value)
    elif kind == tuple[float, ...]:
        if isinstance(value, list) and all(type(item) in (int, float) for item in value):
            return tuple(float(item) for item in value)
    elif type(value) is kind:
        return value
    raise PackageError(f"{CONFIG_NAME}: {name} is {value!r}, which is no {kind}")
