"""Why something from outside was refused: one list of reasons, each with what to do about it."""

import enum


class RejectionReason(enum.StrEnum):
    """A stable code for clients; docs/rejections.md lists them with examples."""

    MALFORMED = "MALFORMED"
    TOO_LARGE = "TOO_LARGE"
    TOO_MANY_OPERATIONS = "TOO_MANY_OPERATIONS"
    NO_OPERATIONS = "NO_OPERATIONS"
    WRONG_CHAIN = "WRONG_CHAIN"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    EXPIRED = "EXPIRED"
    TOO_FAR_AHEAD = "TOO_FAR_AHEAD"
    REPLAYED = "REPLAYED"
    FEE_TOO_LOW = "FEE_TOO_LOW"
    INSUFFICIENT_BALANCE = "INSUFFICIENT_BALANCE"
    INSUFFICIENT_STAKE = "INSUFFICIENT_STAKE"
    AMOUNT_ZERO = "AMOUNT_ZERO"
    AMOUNT_OVERFLOW = "AMOUNT_OVERFLOW"
    BAD_ADDRESS = "BAD_ADDRESS"
    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    MODEL_EXISTS = "MODEL_EXISTS"
    BAD_MODEL = "BAD_MODEL"
    BAD_OFFER = "BAD_OFFER"
    NO_CALIBRATED_PAIR = "NO_CALIBRATED_PAIR"
    UNKNOWN_OPERATOR = "UNKNOWN_OPERATOR"
    NOT_A_VALIDATOR = "NOT_A_VALIDATOR"
    NO_OFFER = "NO_OFFER"
    PRICE_TOO_LOW = "PRICE_TOO_LOW"
    BAD_INPUT = "BAD_INPUT"
    BAD_SAMPLING = "BAD_SAMPLING"
    PROMPT_TOO_LONG = "PROMPT_TOO_LONG"
    MAX_TOKENS_OUT_OF_RANGE = "MAX_TOKENS_OUT_OF_RANGE"
    BAD_DEADLINE = "BAD_DEADLINE"
    UNKNOWN_JOB = "UNKNOWN_JOB"
    NOT_ASSIGNED_TO_YOU = "NOT_ASSIGNED_TO_YOU"
    JOB_NOT_OPEN = "JOB_NOT_OPEN"
    BAD_RESULT = "BAD_RESULT"
    BAD_ATTESTATION = "BAD_ATTESTATION"
    NOT_ON_COMMITTEE = "NOT_ON_COMMITTEE"
    BAD_SESSION = "BAD_SESSION"
    SESSION_EXISTS = "SESSION_EXISTS"
    TOO_MANY_SESSIONS = "TOO_MANY_SESSIONS"
    UNKNOWN_SESSION = "UNKNOWN_SESSION"
    SESSION_FORBIDS = "SESSION_FORBIDS"
    SESSION_OPERATION_CAP = "SESSION_OPERATION_CAP"
    SESSION_TOTAL_CAP = "SESSION_TOTAL_CAP"
    BAD_EVIDENCE = "BAD_EVIDENCE"
    ALREADY_CONVICTED = "ALREADY_CONVICTED"
    CONVICTED = "CONVICTED"
    BUSY = "BUSY"
    NOT_FOUND = "NOT_FOUND"
    NOT_READY = "NOT_READY"
    PRUNED = "PRUNED"


class Rejection(Exception):
    """What others did wrong. `detail` says what was seen, what is allowed, and what to do."""

    def __init__(self, reason: RejectionReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Busy(Rejection):
    """Nothing is wrong but the moment: the same may be asked again after `retry_delay_ms`."""

    def __init__(self, detail: str, retry_delay_ms: int) -> None:
        super().__init__(RejectionReason.BUSY, detail)
        self.retry_delay_ms = retry_delay_ms
