import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.engine import (
    MAX_CHAT_MESSAGES,
    MAX_INPUT_BYTES,
    ChatInput,
    InferenceInput,
    Message,
    RequestError,
    RequestReason,
    Role,
    TextInput,
    TokenInput,
)
from runtime.errors import PackageError
from runtime.model_config import ModelConfig
from runtime.tokenizer import PackageTokenizer
from tests.runtime.tiny_model import SPECIAL_TOKENS, TEMPLATE, TinyModel, tiny_package

END_ID, BEGIN_ID, TURN_ID = range(3)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return tiny_package(tmp_path_factory.mktemp("tiny")).config()


def make_tokenizer(config: ModelConfig, template: str = TEMPLATE) -> PackageTokenizer:
    return PackageTokenizer(json.dumps(TinyModel().tokenizer_json()).encode(), template, config)


@pytest.fixture(scope="module")
def tokenizer(config: ModelConfig) -> PackageTokenizer:
    return make_tokenizer(config)


def chat(*contents: str) -> ChatInput:
    return ChatInput(tuple(Message(Role.USER, content) for content in contents))


def text_of(tokenizer: PackageTokenizer, ids: list[int]) -> str:
    return b"".join(tokenizer.token_bytes(token_id) for token_id in ids).decode()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(alphabet="<|turn>end\n é🙂", max_size=20), min_size=1, max_size=4))
def test_no_message_forges_a_special_token_or_loses_its_text(
    tokenizer: PackageTokenizer, contents: list[str]
) -> None:
    ids = tokenizer.encode(chat(*contents))
    special = [token_id for token_id in ids if token_id < len(SPECIAL_TOKENS)]
    assert special == [TURN_ID, END_ID] * len(contents) + [TURN_ID]
    expected = "".join(f"user\n{content.strip()}" for content in contents) + "assistant\n"
    assert text_of(tokenizer, ids) == expected


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_special_tokens_typed_in_a_text_are_ordinary_text(
    tokenizer: PackageTokenizer, token: str
) -> None:
    begin, *ids = tokenizer.encode(TextInput(f"a{token}b"))
    assert begin == BEGIN_ID
    assert min(ids) >= len(SPECIAL_TOKENS)
    assert text_of(tokenizer, ids) == f"a{token}b"


def test_the_template_sees_the_marker_free_parts_and_may_trim(tokenizer: PackageTokenizer) -> None:
    spaced = tokenizer.encode(chat("  hello the world \n"))
    assert spaced == tokenizer.encode(chat("hello the world"))
    assert len(SPECIAL_TOKENS) + 256 + 1 in spaced  # 'the' is merged, so the marker is gone


def test_token_ids_go_in_exactly_as_they_are(tokenizer: PackageTokenizer) -> None:
    assert tokenizer.encode(TokenInput((TURN_ID, 5, END_ID))) == [TURN_ID, 5, END_ID]


@pytest.mark.parametrize(
    ("request_input", "reason"),
    [
        (TextInput(""), RequestReason.EMPTY_INPUT),
        (ChatInput(()), RequestReason.EMPTY_INPUT),
        (TokenInput(()), RequestReason.EMPTY_INPUT),
        (TokenInput((5, 261)), RequestReason.BAD_TOKEN_ID),
        (TokenInput((-1,)), RequestReason.BAD_TOKEN_ID),
        (TextInput("a" * (MAX_INPUT_BYTES + 1)), RequestReason.INPUT_TOO_LARGE),
        (chat(*["a"] * (MAX_CHAT_MESSAGES + 1)), RequestReason.INPUT_TOO_LARGE),
        (chat("\ud800"), RequestReason.BAD_CHAT),
    ],
)
def test_bad_inputs_are_refused_with_a_reason(
    tokenizer: PackageTokenizer, request_input: InferenceInput, reason: RequestReason
) -> None:
    with pytest.raises(RequestError) as refusal:
        tokenizer.encode(request_input)
    assert refusal.value.reason is reason


def test_a_model_without_template_takes_no_chat(config: ModelConfig) -> None:
    with pytest.raises(RequestError, match="no chat template; send text"):
        make_tokenizer(config, "").encode(chat("hello"))


@pytest.mark.parametrize(
    ("template", "detail"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[7]['content'] }}", "messages"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "[Rr]ange"),
    ],
)
def test_a_template_that_refuses_or_misbehaves_is_a_refused_request(
    config: ModelConfig, template: str, detail: str
) -> None:
    with pytest.raises(RequestError, match=detail) as refusal:
        make_tokenizer(config, template).encode(chat("hello"))
    assert refusal.value.reason is RequestReason.BAD_CHAT


def test_a_template_that_is_no_jinja_makes_the_package_unusable(config: ModelConfig) -> None:
    with pytest.raises(PackageError, match=r"chat_template\.jinja"):
        make_tokenizer(config, "{% for %}")


@pytest.mark.parametrize(
    "damage",
    [
        lambda settings: settings["model"].update(type="WordPiece"),
        lambda settings: settings["added_tokens"][0].update(lstrip=True),
        lambda settings: settings.pop("decoder"),
        lambda settings: settings["model"].pop("vocab"),
    ],
)
def test_a_tokenizer_that_cannot_be_followed_exactly_is_refused(
    config: ModelConfig, damage: object, tmp_path: Path
) -> None:
    settings = TinyModel().tokenizer_json()
    assert callable(damage)
    damage(settings)
    with pytest.raises(PackageError, match=r"tokenizer\.json"):
        PackageTokenizer(json.dumps(settings).encode(), TEMPLATE, config)
