"""What anyone may send to the HTTP side."""

import json
import socket

import httpx2
import pytest

from chain.gateway import app
from chain.gateway.app import BODY_BYTES_MAX
from tests.chain.gateway.tiny_network import BOUND_S

URL = "/v1/chat/completions"


def send(url: str, content: bytes, headers: dict[str, str] | None = None) -> httpx2.Response:
    return httpx2.post(url + URL, content=content, headers=headers, timeout=BOUND_S)


def refused(reply: httpx2.Response, status: int, code: str) -> None:
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"model": NaN}', b'{"a": 1, "a": 1}', b"\xff", b"[" * 100_000, b'"x"'],
)
def test_a_body_that_is_no_json_object_is_refused(open_gateway: str, body: bytes) -> None:
    refused(send(open_gateway, body), 400, "MALFORMED")


def test_a_body_is_read_up_to_its_bound(open_gateway: str) -> None:
    content = b'{"model": "' + b"x" * BODY_BYTES_MAX + b'"}'
    refused(send(open_gateway, content), 413, "TOO_LARGE")


def test_a_body_that_says_it_is_too_large_is_not_waited_for(open_gateway: str) -> None:
    address = httpx2.URL(open_gateway)
    with socket.create_connection((address.host, address.port), BOUND_S) as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\n" % URL.encode())
        connection.sendall(b"Content-Length: 99999999999999999999\r\n\r\n{")
        head = connection.makefile("rb").readline()
    assert head.startswith(b"HTTP/1.1 413 ")


def test_a_refusal_quotes_half_a_surrogate_pair_as_an_escape(open_gateway: str) -> None:
    reply = send(open_gateway, b'{"model":"m","messages":[],"\\udfff\\r\\n":1}')
    refused(reply, 400, "MALFORMED")
    named = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    content = json.dumps(named)[:-1] + ',"\\udfff":1}'
    reply = send(open_gateway, content.encode())
    refused(reply, 400, "UNKNOWN_ARGUMENT")
    assert reply.json()["error"]["param"] == "\\udfff"


def test_a_body_that_does_not_come_is_waited_for_no_longer_than_told(
    open_gateway: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "BODY_WITHIN_S", 0.2)
    address = httpx2.URL(open_gateway)
    with socket.create_connection((address.host, address.port), BOUND_S) as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\n" % URL.encode())
        connection.sendall(b"Connection: close\r\nContent-Length: 1000\r\n\r\n{")
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"]["code"] == "SLOW_REQUEST"


def test_a_prompt_that_no_transaction_holds_is_refused_by_the_chain(open_gateway: str) -> None:
    question = {"model": "tiny", "prompt": "x" * 200_000, "max_tokens": 1}
    reply = httpx2.post(f"{open_gateway}/v1/completions", json=question, timeout=BOUND_S)
    assert reply.status_code in (400, 413)
    assert reply.json()["error"]["code"] in ("PROMPT_TOO_LONG", "TOO_LARGE", "BAD_INPUT")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/embeddings", 404, "NOT_FOUND"),
        ("GET", URL, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/v1/models", 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_what_is_not_served_says_what_is(
    open_gateway: str, method: str, path: str, status: int, code: str
) -> None:
    reply = httpx2.request(method, open_gateway + path, timeout=BOUND_S)
    refused(reply, status, code)
    assert "/v1/chat/completions" in reply.json()["error"]["message"]


def test_an_idempotency_key_is_short(open_gateway: str) -> None:
    question = b'{"model": "tiny", "messages": [{"role": "user", "content": "x"}]}'
    reply = send(open_gateway, question, {"idempotency-key": "k" * 256})
    refused(reply, 400, "MALFORMED")


def test_it_tells_that_it_lives_to_anyone(open_gateway: str) -> None:
    reply = httpx2.get(f"{open_gateway}/healthz", timeout=BOUND_S)
    assert reply.status_code == 200
    assert reply.json()["status"] == "ok"


def test_a_web_page_is_not_let_in(open_gateway: str) -> None:
    refused(send(open_gateway, b"{}", {"origin": "https://example.org"}), 403, "WEB_PAGE")
