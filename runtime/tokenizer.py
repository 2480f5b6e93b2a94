"""From requests to token ids, and from token ids to bytes of text."""

import json
import re
from collections.abc import Sequence
from typing import Any

from runtime.engine import (
    MAX_CHAT_MESSAGES,
    MAX_INPUT_BYTES,
    ChatInput,
    InferenceInput,
    Message,
    RequestError,
    RequestReason,
    TextInput,
)
from runtime.errors import PackageError
from runtime.model_config import ModelConfig
from runtime.sources import TOKENIZER_NAME, parse_tokenizer
from runtime.templates import ChatTemplate


def byte_alphabet() -> dict[str, int]:
    """The characters by which byte-level BPE writes bytes: printable Latin-1 as itself, others
    from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(0x100) if byte not in set(printable))
    alphabet.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return alphabet


class PackageTokenizer:
    """The tokenizer and chat template of a package. Building one raises PackageError."""

    def __init__(self, tokenizer_json: bytes, chat_template: str, config: ModelConfig) -> None:
        settings = _parse(tokenizer_json)
        added = settings["added_tokens"]
        self._special = {entry["content"]: entry["id"] for entry in added if entry["special"]}
        self._special_ids = frozenset(self._special.values())
        longest_first = sorted(self._special, key=len, reverse=True)
        self._special_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        # Text is encoded by a tokenizer that knows no special token, so none can come out of it.
        settings["added_tokens"] = [entry for entry in added if not entry["special"]]
        settings["post_processor"] = None
        settings["truncation"] = None
        settings["padding"] = None
        self._plain = parse_tokenizer(json.dumps(settings).encode())
        self._token_bytes = _token_bytes(settings, added, config.vocabulary)
        self._config = config
        self._template = (
            ChatTemplate(chat_template, config.begin_token, config.end_token)
            if chat_template
            else None
        )

    def encode(self, request: InferenceInput) -> list[int]:
        """Prompt ids of a request. Raises RequestError."""
        if isinstance(request, TextInput):
            _check_text([request.text])
            if not request.text:
                raise RequestError(RequestReason.EMPTY_INPUT, "the text is empty")
            return [*self._config.begin_token_ids, *self._encode_plain(request.text)]
        if isinstance(request, ChatInput):
            return self._encode_chat(request.messages)
        return self._check_ids(request.ids)

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of text a token stands for; none for special tokens."""
        return self._token_bytes[token_id]

    def _check_ids(self, ids: Sequence[int]) -> list[int]:
        if not ids:
            raise RequestError(RequestReason.EMPTY_INPUT, "there are no token ids")
        for position, token_id in enumerate(ids):
            if not 0 <= token_id < self._config.vocabulary:
                raise RequestError(
                    RequestReason.BAD_TOKEN_ID,
                    f"token id {token_id} at position {position} is outside the vocabulary "
                    f"of {self._config.vocabulary}",
                )
        return list(ids)

    def _encode_chat(self, messages: Sequence[Message]) -> list[int]:
        if self._template is None:
            raise RequestError(RequestReason.BAD_CHAT, "this model has no chat template; send text")
        if not messages:
            raise RequestError(RequestReason.EMPTY_INPUT, "the chat has no messages")
        if len(messages) > MAX_CHAT_MESSAGES:
            raise RequestError(
                RequestReason.INPUT_TOO_LARGE,
                f"the chat has {len(messages)} messages, allowed are {MAX_CHAT_MESSAGES}",
            )
        _check_text([message.content for message in messages])
        text, marker = self._template.render(messages, self._special)
        ids: list[int] = []
        end = 0
        for match in self._special_pattern.finditer(text):
            ids += self._encode_plain(text[end : match.start()].replace(marker, ""))
            ids.append(self._special[match.group()])
            end = match.end()
        return ids + self._encode_plain(text[end:].replace(marker, ""))

    def _encode_plain(self, text: str) -> list[int]:
        if not text:
            return []
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        forged = self._special_ids.intersection(ids)
        if forged:
            raise RequestError(
                RequestReason.BAD_TOKEN_ID, f"the text would become the special token {min(forged)}"
            )
        return ids


def _check_text(texts: Sequence[str]) -> None:
    try:
        size_bytes = sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError as error:
        raise RequestError(RequestReason.BAD_CHAT, "the text is not valid Unicode") from error
    if size_bytes > MAX_INPUT_BYTES:
        raise RequestError(
            RequestReason.INPUT_TOO_LARGE,
            f"the input has {size_bytes} bytes, allowed are {MAX_INPUT_BYTES}",
        )


def _parse(tokenizer_json: bytes) -> dict[str, Any]:
    try:
        settings = json.loads(tokenizer_json)
        model, decoder = settings["model"], settings["decoder"]
        for entry in settings["added_tokens"]:
            if entry["special"] and (entry["lstrip"] or entry["rstrip"]):
                raise PackageError(
                    f"{TOKENIZER_NAME}: special token {entry['content']!r} strips spaces, "
                    "which is not supported"
                )
        if model["type"] != "BPE" or decoder["type"] != "ByteLevel":
            raise PackageError(f"{TOKENIZER_NAME}: supported is byte-level BPE only")
    except (ValueError, KeyError, TypeError) as error:
        raise PackageError(f"{TOKENIZER_NAME}: damaged: {error!r}") from error
    return settings  # type: ignore[no-any-return]


def _token_bytes(
    settings: dict[str, Any], added: list[dict[str, Any]], vocabulary: int
) -> tuple[bytes, ...]:
    """For each id the bytes it stands for; ids no token has stand for nothing."""
    alphabet = byte_alphabet()
    table = [b""] * vocabulary
    for token, token_id in settings["model"]["vocab"].items():
        if token_id < vocabulary and all(character in alphabet for character in token):
            table[token_id] = bytes(alphabet[character] for character in token)
    for entry in added:
        if entry["id"] < vocabulary:
            table[entry["id"]] = b"" if entry["special"] else entry["content"].encode()
    return tuple(table)
