"""Request bodies of OpenAI's API as questions to the chain: pure, strict, nothing passed over.

An argument is used, or has the one value that asks for nothing, or is refused by name. Bounds of
sampling are the chain's own; what it refuses comes back with its reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from assay.v1 import inference_pb2, transactions_pb2
from chain.addresses import parse_account
from chain.dapp.client import SCALE, user_seed
from chain.gateway.errors import GatewayReason, bad_request
from chain.rejections import Rejection, RejectionReason

U32_MAX: Final = (1 << 32) - 1
GRAIN_MAX: Final = (1 << 63) - 1
"""What the book can add up."""
MESSAGES_MAX: Final = 4096
STOP_MAX: Final = 64
SEED_MAX: Final = (1 << 63) - 1
TEMPERATURE_DEFAULT: Final = 1.0
"""As OpenAI's API has it."""
TIERS: Final = {
    "standard": transactions_pb2.TIER_STANDARD,
    "critical": transactions_pb2.TIER_CRITICAL,
}
_ROLES: Final = {
    "system": inference_pb2.ROLE_SYSTEM,
    "developer": inference_pb2.ROLE_SYSTEM,
    "user": inference_pb2.ROLE_USER,
    "assistant": inference_pb2.ROLE_ASSISTANT,
}
_IGNORED: Final = frozenset(
    {
        *("user", "metadata", "safety_identifier", "prompt_cache_key"),
        *("prompt_cache_retention", "parallel_tool_calls"),
    }
)
"""They change nothing about an answer."""
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
    "moderation": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
}
"""What the protocol can't do, with the values that ask for nothing; null always does."""
_ADVICE: Final = {
    "n": "ask once for each answer wanted",
    "best_of": "ask several times and choose",
    "top_logprobs": "a result holds the log-probability of the chosen tokens only",
    "logprobs": "a result holds the log-probability of the chosen token only: 0 asks for it",
    "tools": "describe them in the prompt and read the answer's text",
    "functions": "describe them in the prompt and read the answer's text",
    "response_format": "ask for the format in the prompt",
    "store": "every answer is kept on chain; nothing else is stored",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, and how the answer is to be told."""

    is_chat: bool
    model: str
    request: transactions_pb2.RequestInference
    """Without its model and price, which the chain's state decides."""
    max_price: int | None
    stream: bool
    include_usage: bool
    logprobs: bool


class _Arguments:
    """A JSON object's members, each taken once and checked; the place is told in every refusal."""

    def __init__(self, values: Mapping[str, Any], place: str = "") -> None:
        self._values = {name: value for name, value in values.items() if value is not None}
        self._place = place

    def take(self, name: str) -> Any:
        return self._values.pop(name, None)

    def number(self, name: str, default: float, highest: float) -> float:
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(name, f"{value!r:.80} is no number")
        if not 0 <= value <= highest:
            self.refuse(name, f"{value} is out of range, allowed are 0 to {highest:g}")
        return value

    def integer(self, name: str, lowest: int, highest: int) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(name, f"{value!r:.80} is no integer")
        if not lowest <= value <= highest:
            self.refuse(name, f"{value} is out of range, allowed are {lowest} to {highest}")
        return value

    def flag(self, name: str) -> bool:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, f"{value!r:.80} is neither true nor false")
        return bool(value)

    def text(self, name: str, default: str | None = None) -> str:
        value = self.take(name)
        if value is None:
            value = default
        if value is None:
            self.refuse(name, "is missing")
        return _encodable(value, self.path(name))

    def object(self, name: str) -> "_Arguments":
        value = self.take(name)
        if value is not None and not isinstance(value, dict):
            self.refuse(name, "must be an object")
        return _Arguments(value or {}, f"{self.path(name)}.")

    def path(self, name: str) -> str:
        return f"{self._place}{name}"

    def refuse(self, name: str, why: str) -> NoReturn:
        _malformed(self.path(name), why)

    def finish(self) -> None:
        """Refuse what nobody took."""
        for name, value in self._values.items():
            if name in _IGNORED and not self._place:
                continue
            path = self.path(name)
            if self._place or name not in _NEUTRAL:
                raise bad_request(
                    GatewayReason.UNKNOWN_ARGUMENT,
                    f"{path}: unknown argument; remove it (docs/gateway.md lists what is known)",
                    path,
                )
            neutral = _NEUTRAL[name]
            if not any(value == item and type(value) is type(item) for item in neutral):
                _unsupported(path, value)


def _malformed(place: str, why: str, code: str = RejectionReason.MALFORMED) -> NoReturn:
    raise bad_request(code, f"{place}: {why}", place)


def _unsupported(place: str, value: Any) -> NoReturn:
    advice = _ADVICE.get(place, "remove it")
    raise bad_request(
        GatewayReason.UNSUPPORTED,
        f"{place}: {value!r:.80} is not supported; {advice}",
        place,
    )


def _encodable(value: Any, place: str) -> str:
    if not isinstance(value, str):
        _malformed(place, f"{value!r:.80} is no text")
    try:
        value.encode()
    except UnicodeEncodeError:
        _malformed(place, "has half of a surrogate pair: send whole characters")
    return value


def parse_chat(body: Mapping[str, Any], default_max_tokens: int) -> Question:
    """A body of /v1/chat/completions. Raises GatewayError."""
    arguments = _Arguments(body)
    messages = _messages(arguments.take("messages"))
    limit = arguments.integer("max_completion_tokens", 1, U32_MAX)
    logprobs = arguments.flag("logprobs")
    asked = inference_pb2.InferenceInput(chat=inference_pb2.Chat(messages=messages))
    return _question(arguments, True, asked, limit, logprobs, default_max_tokens)


def parse_completion(body: Mapping[str, Any], default_max_tokens: int) -> Question:
    """A body of /v1/completions. Raises GatewayError."""
    arguments = _Arguments(body)
    asked = _prompt(arguments.take("prompt"))
    logprobs = arguments.take("logprobs")
    if logprobs is not None and (isinstance(logprobs, bool) or logprobs != 0):
        _unsupported("logprobs", logprobs)
    return _question(arguments, False, asked, None, logprobs is not None, default_max_tokens)


def _question(
    arguments: _Arguments,
    is_chat: bool,
    asked: inference_pb2.InferenceInput,
    limit: int | None,
    logprobs: bool,
    default_max_tokens: int,
) -> Question:
    older_limit = arguments.integer("max_tokens", 1, U32_MAX)
    sampling = inference_pb2.Sampling(
        temperature_milli=_milli(arguments, "temperature", TEMPERATURE_DEFAULT, U32_MAX / SCALE),
        # 0 is "off" in the protocol; the least it can say is a thousandth.
        top_p_milli=max(1, _milli(arguments, "top_p", 1.0, 1.0)),
        max_output_tokens=limit or older_limit or default_max_tokens,
        stop=_stop(arguments.take("stop")),
    )
    seed = arguments.integer("seed", -SEED_MAX - 1, SEED_MAX)
    stream = arguments.flag("stream")
    options = arguments.object("stream_options")
    include_usage = options.flag("include_usage")
    options.flag("include_obfuscation")
    options.finish()
    request = transactions_pb2.RequestInference(
        input=asked,
        sampling=sampling,
        seed=b"" if seed is None else user_seed(seed),
    )
    model = arguments.text("model")
    max_price = _extensions(arguments.object("assay"), request)
    arguments.finish()
    return Question(is_chat, model, request, max_price, stream, include_usage, logprobs)


def _milli(arguments: _Arguments, name: str, default: float, highest: float) -> int:
    return round(arguments.number(name, default, highest) * SCALE)


def _extensions(own: _Arguments, request: transactions_pb2.RequestInference) -> int | None:
    """What the protocol can do and OpenAI's API has no word for; the price, if it is given."""
    request.sampling.top_k = own.integer("top_k", 0, U32_MAX) or 0
    request.sampling.min_tokens = own.integer("min_tokens", 0, U32_MAX) or 0
    request.sampling.logprob_ceiling_milli = _milli(own, "logprob_ceiling", 0.0, U32_MAX / SCALE)
    tier = own.text("tier", "standard")
    if tier not in TIERS:
        own.refuse("tier", f"{tier!r:.80}: give one of {', '.join(TIERS)}")
    request.tier = TIERS[tier]
    provider = own.text("provider", "")
    if provider:
        try:
            request.provider = parse_account(provider)
        except Rejection as rejection:
            _malformed(own.path("provider"), rejection.detail, rejection.reason)
    request.answer_within_ms = own.integer("answer_within_ms", 0, U32_MAX) or 0
    max_price = own.integer("max_price", 0, GRAIN_MAX)
    own.finish()
    return max_price


def _stop(value: Any) -> list[str]:
    items = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(items, list) or len(items) > STOP_MAX:
        _malformed("stop", "give a text or a list of a few")
    return [_encodable(item, f"stop[{index}]") for index, item in enumerate(items)]


def _messages(value: Any) -> list[inference_pb2.ChatMessage]:
    if not isinstance(value, list) or not 1 <= len(value) <= MESSAGES_MAX:
        _malformed("messages", f"give a list of 1 to {MESSAGES_MAX} messages")
    return [_message(item, f"messages[{index}]") for index, item in enumerate(value)]


def _message(value: Any, place: str) -> inference_pb2.ChatMessage:
    if not isinstance(value, dict):
        _malformed(place, "must be an object with role and content")
    for name, item in value.items():
        if name not in ("role", "content") and item not in (None, [], ""):
            raise bad_request(
                GatewayReason.UNSUPPORTED,
                f"{place}.{name}: a message has a role and a text, nothing else; put it into the "
                "content or remove it",
                f"{place}.{name}",
            )
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise bad_request(
            GatewayReason.UNSUPPORTED,
            f"{place}.role: {role!r:.80} is not supported; give one of {', '.join(_ROLES)}",
            f"{place}.role",
        )
    return inference_pb2.ChatMessage(
        role=_ROLES[role], content=_content(value.get("content"), f"{place}.content")
    )


def _content(value: Any, place: str) -> str:
    """A text, or the texts of a list of parts, joined."""
    if not isinstance(value, list):
        return _encodable(value, place)
    texts = []
    for index, part in enumerate(value):
        where = f"{place}[{index}]"
        if not isinstance(part, dict) or part.get("type") != "text":
            raise bad_request(
                GatewayReason.UNSUPPORTED,
                f"{where}: only parts of type 'text' are supported; the models read text",
                where,
            )
        texts.append(_encodable(part.get("text"), f"{where}.text"))
    return "".join(texts)


def _prompt(value: Any) -> inference_pb2.InferenceInput:
    """A text or token ids; a list of one of them is taken as that one."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, list) and value and all(_is_token_id(item) for item in value):
        ids = inference_pb2.TokenIds(ids=value)
        return inference_pb2.InferenceInput(token_ids=ids)
    if isinstance(value, list) and value and all(isinstance(item, str | list) for item in value):
        raise bad_request(
            GatewayReason.UNSUPPORTED,
            f"prompt: {len(value)} prompts are not supported; ask once for each",
            "prompt",
        )
    return inference_pb2.InferenceInput(text=_encodable(value, "prompt"))


def _is_token_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= U32_MAX


Parser = Callable[[Mapping[str, Any], int], Question]
