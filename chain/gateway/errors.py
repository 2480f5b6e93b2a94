"""Refusals as OpenAI's clients read them: HTTP status, type, code, and what to do."""

import enum
import math
from collections.abc import Mapping
from typing import Any, Final

from chain.client import NodeUnavailableError
from chain.dapp.following import NotSettledInTime
from chain.receipts import ReceiptInvalid
from chain.rejections import Busy, Rejection, RejectionReason

RETRY_SOON_S: Final = 1
RETRY_LATER_S: Final = 5


class GatewayReason(enum.StrEnum):
    """What the gateway itself refuses; docs/gateway.md lists them."""

    UNSUPPORTED = "UNSUPPORTED"
    UNKNOWN_ARGUMENT = "UNKNOWN_ARGUMENT"
    BAD_API_KEY = "BAD_API_KEY"
    API_KEY_EXPIRED = "API_KEY_EXPIRED"
    WEB_PAGE = "WEB_PAGE"
    SPEND_CAP_REACHED = "SPEND_CAP_REACHED"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    NODE_UNAVAILABLE = "NODE_UNAVAILABLE"
    NOT_SETTLED_IN_TIME = "NOT_SETTLED_IN_TIME"
    BAD_RECEIPT = "BAD_RECEIPT"
    ANSWER_CHANGED = "ANSWER_CHANGED"
    REJECTED = "REJECTED"
    REFUNDED = "REFUNDED"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    SLOW_REQUEST = "SLOW_REQUEST"
    INTERNAL = "INTERNAL"


_STATUS: Final = {
    RejectionReason.BUSY: 429,
    RejectionReason.INSUFFICIENT_BALANCE: 402,
    RejectionReason.SESSION_OPERATION_CAP: 402,
    RejectionReason.SESSION_TOTAL_CAP: 402,
    RejectionReason.UNKNOWN_SESSION: 403,
    RejectionReason.SESSION_FORBIDS: 403,
    RejectionReason.UNKNOWN_MODEL: 404,
    RejectionReason.UNKNOWN_JOB: 404,
    RejectionReason.NOT_FOUND: 404,
    RejectionReason.NOT_READY: 409,
    RejectionReason.REPLAYED: 409,
    RejectionReason.PRUNED: 410,
    RejectionReason.TOO_LARGE: 413,
    RejectionReason.NO_OFFER: 503,
    RejectionReason.NO_CALIBRATED_PAIR: 503,
    RejectionReason.EXPIRED: 503,
    RejectionReason.STATE_FULL: 503,
}
_TYPES: Final = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
_FIRST_OF_SERVER: Final = 500


class GatewayError(Exception):
    """A refusal. `message` says what was seen, what is allowed, and what to do."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        parameter: str | None = None,
        retry_after_s: int | None = None,
        may_retry: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = str(code)
        self.message = _writable(message)
        self.parameter = None if parameter is None else _writable(parameter)
        self._retry_after_s = retry_after_s
        self._may_retry = may_retry
        self._headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        server = "server_error" if self.status >= _FIRST_OF_SERVER else "invalid_request_error"
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, server),
                "param": self.parameter,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        """Of the response. OpenAI's clients ask again by themselves after most errors, unless
        told: that would buy again what may be under way."""
        headers = {**self._headers, "x-should-retry": "true" if self._may_retry else "false"}
        if self._retry_after_s is not None:
            headers["retry-after"] = str(self._retry_after_s)
        return headers


def _writable(text: str) -> str:
    """The text, which may quote half of a surrogate pair, as UTF-8 can say it."""
    return text.encode(errors="backslashreplace").decode()


def bad_request(
    code: str, message: str, parameter: str | None = None, status: int = 400
) -> GatewayError:
    """The caller has to ask otherwise."""
    return GatewayError(status, code, message, parameter)


def error_of(
    error: Exception, sent: bool = False, headers: Mapping[str, str] | None = None
) -> GatewayError:
    """What a caller is told of a failure; `sent` if the question may be on its way all the same."""
    later = (
        "; the question may be under way: with the same Idempotency-Key a retry does not buy twice"
    )
    match error:
        case GatewayError():
            return error
        case Busy():
            wait_s = max(RETRY_SOON_S, math.ceil(error.retry_delay_ms / 1000))
            return GatewayError(
                429, error.reason, error.detail, None, wait_s, may_retry=not sent, headers=headers
            )
        case Rejection():
            status = _STATUS.get(error.reason, 400)
            wait = {409: RETRY_SOON_S, 503: RETRY_LATER_S}.get(status)
            return GatewayError(status, error.reason, error.detail, None, wait, headers=headers)
        case NodeUnavailableError():
            return GatewayError(
                503,
                GatewayReason.NODE_UNAVAILABLE,
                f"no node answers: {error}{later if sent else '; try again later'}",
                retry_after_s=RETRY_LATER_S,
                may_retry=not sent,
                headers=headers,
            )
        case NotSettledInTime():
            return GatewayError(504, GatewayReason.NOT_SETTLED_IN_TIME, str(error), headers=headers)
        case ReceiptInvalid():
            return GatewayError(
                502,
                GatewayReason.BAD_RECEIPT,
                f"the nodes' receipt proves nothing ({error.reason}: {error.detail}); "
                "use nodes that you trust",
                headers=headers,
            )
        case _:
            return GatewayError(
                500,
                GatewayReason.INTERNAL,
                f"the gateway failed; its log says why{later if sent else ''}",
                headers=headers,
            )
