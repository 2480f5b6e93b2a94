"""Chat templates: jinja2 in a sandbox, as Hugging Face renders them, safe against forged roles.

A template yields one text in which special tokens mark the roles. To tell those it wrote from
those a user typed, a marker character that occurs in no message is put behind each character of
the messages with which a special token could begin; so no special token of the rendered text comes
out of a message. The marker is taken out again before tokens are made, and messages otherwise
reach the template as they are: it can trim or compare them.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runtime.engine import MAX_INPUT_BYTES, Message, RequestError, RequestReason
from runtime.errors import PackageError

_MARKERS = range(0xF0000, 0xF1000)
"""Private-use characters, of which the first not in any message becomes the marker."""


class ChatTemplate:
    """A compiled chat template. Building one raises PackageError."""

    def __init__(self, source: str, begin_token: str, end_token: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise PackageError(f"chat_template.jinja: {error}") from error
        self._tokens = {"bos_token": begin_token, "eos_token": end_token}

    def render(self, messages: Sequence[Message], special_tokens: Iterable[str]) -> tuple[str, str]:
        """(text, marker): the text up to where the assistant speaks, and what to take out of it.

        Raises RequestError when the template refuses the messages.
        """
        marker = _marker(messages)
        beginnings = {ord(token[0]): token[0] + marker for token in special_tokens}
        turns = [
            {"role": message.role.value, "content": message.content.translate(beginnings)}
            for message in messages
        ]
        try:
            text = self._template.render(messages=turns, add_generation_prompt=True, **self._tokens)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise RequestError(
                RequestReason.BAD_CHAT, f"the model's chat template refuses these messages: {error}"
            ) from error
        if len(text) > 4 * MAX_INPUT_BYTES:
            raise RequestError(RequestReason.INPUT_TOO_LARGE, "the rendered chat is too long")
        return text, marker


def _refuse(message: Any) -> NoReturn:
    raise TemplateError(str(message))


def _marker(messages: Sequence[Message]) -> str:
    used = set().union(*(set(message.content) for message in messages))
    for code in _MARKERS:
        if chr(code) not in used:
            return chr(code)
    raise RequestError(
        RequestReason.BAD_CHAT, f"messages use all {len(_MARKERS)} characters from U+F0000 on"
    )
