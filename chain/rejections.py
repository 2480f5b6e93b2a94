"""Why something from outside was refused: one list of reasons, each with what to do about it.

Every reason has an exception of its own, made from the list: `Rejection(reason, detail)` is an
instance of it. `assay.errors` has them by name, docs/reasons.md tells each with an example.
"""

import enum
from dataclasses import dataclass
from typing import Any, Final


class RejectionReason(enum.StrEnum):
    """A stable code for clients; docs/reasons.md lists them with examples."""

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
    BAD_TRAP = "BAD_TRAP"
    BAD_VALIDATOR = "BAD_VALIDATOR"
    TOO_MANY_VALIDATORS = "TOO_MANY_VALIDATORS"
    TOO_SOON = "TOO_SOON"
    JAILED = "JAILED"
    ALREADY_CONVICTED = "ALREADY_CONVICTED"
    CONVICTED = "CONVICTED"
    EJECTED = "EJECTED"
    NO_ARBITER = "NO_ARBITER"
    STATE_FULL = "STATE_FULL"
    BUSY = "BUSY"
    NOT_FOUND = "NOT_FOUND"
    NOT_READY = "NOT_READY"
    PRUNED = "PRUNED"


@dataclass(frozen=True, slots=True)
class Explanation:
    """A reason as docs/reasons.md and the exceptions tell it."""

    meaning: str
    remedy: str
    """What to do about it."""


EXPLANATIONS: Final[dict[RejectionReason, Explanation]] = {
    RejectionReason.MALFORMED: Explanation(
        "The bytes are not what they should be: no protobuf, a field twice, an unknown kind.",
        "Build the message with the schemas of this version, or with a client library.",
    ),
    RejectionReason.TOO_LARGE: Explanation(
        "A body, a request or a payload is larger than one may be.",
        "Split it; the message names the bound.",
    ),
    RejectionReason.TOO_MANY_OPERATIONS: Explanation(
        "A transaction holds more than 256 operations.",
        "Send them in several transactions.",
    ),
    RejectionReason.NO_OPERATIONS: Explanation(
        "A transaction holds no operation.",
        "Put at least one into it.",
    ),
    RejectionReason.WRONG_CHAIN: Explanation(
        "It was signed for another chain.",
        "Sign it for the chain that the node serves, or ask a node of yours.",
    ),
    RejectionReason.BAD_SIGNATURE: Explanation(
        "The signature does not cover this body under this key.",
        "Sign the exact bytes of the body; never serialise them again after signing.",
    ),
    RejectionReason.EXPIRED: Explanation(
        "The last height at which it may be included has passed.",
        "Sign it again with a later `valid_until_height`.",
    ),
    RejectionReason.TOO_FAR_AHEAD: Explanation(
        "Its last height is more than 256 blocks ahead of the node.",
        "Choose a nearer height; if the node lags, ask another.",
    ),
    RejectionReason.REPLAYED: Explanation(
        "A transaction with this id is included, or waits here.",
        "Wait for its outcome. To do the same once more, sign with a new salt.",
    ),
    RejectionReason.FEE_TOO_LOW: Explanation(
        "`max_fee` does not cover the fee.",
        "Offer at least what the message names; `GetParameters` has the tariff.",
    ),
    RejectionReason.INSUFFICIENT_BALANCE: Explanation(
        "The account does not hold the fee, or an amount that an operation moves.",
        "Add funds, or spend less.",
    ),
    RejectionReason.INSUFFICIENT_STAKE: Explanation(
        "The account has less stake than an offer, an announcement or an unstaking needs.",
        "Stake more, or withdraw offers first.",
    ),
    RejectionReason.AMOUNT_ZERO: Explanation(
        "An operation would move nothing.",
        "Give an amount of at least 1 grain.",
    ),
    RejectionReason.BAD_ADDRESS: Explanation(
        "Something that should name an account does not: its length or its checksum is wrong.",
        "Give 32 bytes, or on the command line `assay1…` or 64 hexadecimal digits.",
    ),
    RejectionReason.UNKNOWN_MODEL: Explanation(
        "No registered model has this name or id.",
        "List the models and name one of them.",
    ),
    RejectionReason.MODEL_EXISTS: Explanation(
        "A model with this id is registered already.",
        "Use it; another package has another id.",
    ),
    RejectionReason.BAD_MODEL: Explanation(
        "A registration is not in order: id, name, context, royalty or pairs.",
        "Mend what the message names; `assay model calibrate` makes pairs.",
    ),
    RejectionReason.BAD_OFFER: Explanation(
        "An offer has terms that cannot be, or withdraws what was never made.",
        "Mend what the message names.",
    ),
    RejectionReason.NO_CALIBRATED_PAIR: Explanation(
        "The model has no thresholds for this pair of engine profiles.",
        "Use an engine of a registered pair, or register the model with a calibration of yours.",
    ),
    RejectionReason.UNKNOWN_OPERATOR: Explanation(
        "No validator has this index.",
        "Name the validator at whose node the provider runs.",
    ),
    RejectionReason.NOT_A_VALIDATOR: Explanation(
        "Only a validator's account may do this.",
        "Sign with the account of a validator.",
    ),
    RejectionReason.NO_OFFER: Explanation(
        "Nobody offers this model now, or the provider asked for does not.",
        "Ask later, or without naming a provider.",
    ),
    RejectionReason.PRICE_TOO_LOW: Explanation(
        "`max_price` is below what the cheapest offer needs.",
        "Offer what the message names; what is not spent comes back.",
    ),
    RejectionReason.BAD_INPUT: Explanation(
        "The prompt is empty or ill-formed.",
        "Give a text, a chat with roles, or token ids.",
    ),
    RejectionReason.BAD_SAMPLING: Explanation(
        "A sampling parameter is outside its range.",
        "Keep to the bound that the message names.",
    ),
    RejectionReason.PROMPT_TOO_LONG: Explanation(
        "The prompt does not fit the model's context.",
        "Shorten it, or choose a model with a longer context.",
    ),
    RejectionReason.MAX_TOKENS_OUT_OF_RANGE: Explanation(
        "`max_output_tokens` is 0, or more than this model gives.",
        "Ask for as many as the message allows.",
    ),
    RejectionReason.BAD_DEADLINE: Explanation(
        "`answer_within_ms` is outside its range.",
        "Give what the message allows, or 0 for the default.",
    ),
    RejectionReason.UNKNOWN_JOB: Explanation(
        "There is no such job, or its row has left the state.",
        "Check the id; a finished job's receipt has its outcome.",
    ),
    RejectionReason.NOT_ASSIGNED_TO_YOU: Explanation(
        "The job is another provider's.",
        "Answer only jobs that are assigned to your account.",
    ),
    RejectionReason.JOB_NOT_OPEN: Explanation(
        "The job is not at the step that this belongs to.",
        "Look at its status; what came too late is void.",
    ),
    RejectionReason.BAD_RESULT: Explanation(
        "A result is not one that its job could have.",
        "Mend what the message names before the job's deadline.",
    ),
    RejectionReason.BAD_ATTESTATION: Explanation(
        "A commitment or its opening is not in order.",
        "Verifiers run the node of this version; what was committed must be what is revealed.",
    ),
    RejectionReason.NOT_ON_COMMITTEE: Explanation(
        "This validator was not drawn for the job's current round.",
        "Speak only for seats that the chain has drawn.",
    ),
    RejectionReason.BAD_SESSION: Explanation(
        "A grant makes no sense: key, caps, height or lists.",
        "Mend what the message names (docs/session-keys.md).",
    ),
    RejectionReason.SESSION_EXISTS: Explanation(
        "The key is a session key of this account already.",
        "Revoke it first; both may stand in one transaction.",
    ),
    RejectionReason.TOO_MANY_SESSIONS: Explanation(
        "The account has as many session keys as one may have.",
        "Revoke one.",
    ),
    RejectionReason.UNKNOWN_SESSION: Explanation(
        "The signer is no session key of the account: never granted, revoked or expired.",
        "Have the account grant it, or sign with the account's key.",
    ),
    RejectionReason.SESSION_FORBIDS: Explanation(
        "The session key is not allowed this operation, model or recipient.",
        "Ask for what it may do (`assay session list`), or grant one that may do more.",
    ),
    RejectionReason.SESSION_OPERATION_CAP: Explanation(
        "An operation would cost more than this session key may spend on one.",
        "Ask for less, or grant a higher cap.",
    ),
    RejectionReason.SESSION_TOTAL_CAP: Explanation(
        "The session key has not so much left.",
        "Wait until open jobs give back what they did not use, or grant a new one.",
    ),
    RejectionReason.BAD_EVIDENCE: Explanation(
        "What was reported does not show that a validator broke the rules.",
        "Report two things that the same validator signed and no honest one signs.",
    ),
    RejectionReason.BAD_TRAP: Explanation(
        "No such trap was set, or it is not yours to open.",
        "Set it before its request is included, and open it as the requester, with its salt.",
    ),
    RejectionReason.BAD_VALIDATOR: Explanation(
        "A validator's keys or address cannot be used, or a proof does not hold them together.",
        "Make the operation by `assay validator`; a key that another has or had is nobody else's.",
    ),
    RejectionReason.TOO_MANY_VALIDATORS: Explanation(
        "As many validators are registered as there can be, those who wait included.",
        "Wait until one has left and its stake is released.",
    ),
    RejectionReason.TOO_SOON: Explanation(
        "The validator changed its keys in this epoch already.",
        "Wait for the next epoch.",
    ),
    RejectionReason.JAILED: Explanation(
        "The validator is out for a term, or for good.",
        "Ask again in the epoch that is named; a conviction has no end.",
    ),
    RejectionReason.ALREADY_CONVICTED: Explanation(
        "This validator was convicted before.",
        "Nothing: it counts once.",
    ),
    RejectionReason.CONVICTED: Explanation(
        "A validator that was convicted has lost its offices.",
        "Name another operator.",
    ),
    RejectionReason.EJECTED: Explanation(
        "What the provider's jobs for this model have shown together no honest provider shows.",
        "Offer another model.",
    ),
    RejectionReason.NO_ARBITER: Explanation(
        "Too few validators serve the model with the exact engine to rule on an appeal.",
        "Ask operators to serve the model with the reference engine, then appeal again.",
    ),
    RejectionReason.STATE_FULL: Explanation(
        "It would add a row to a table of the state that is full.",
        "Use what exists: pay to an account that has been used. Where rows go, as those of final "
        "jobs and ended sessions do, wait until some have gone.",
    ),
    RejectionReason.BUSY: Explanation(
        "The node, or the gateway, has no room at this moment. Nothing else is wrong.",
        "Come again after the delay in RetryInfo, or ask another node.",
    ),
    RejectionReason.NOT_FOUND: Explanation(
        "The node knows no such transaction or block.",
        "Wait for it, or ask another node; what has expired must be signed anew.",
    ),
    RejectionReason.NOT_READY: Explanation(
        "It is not there yet.",
        "Ask again in a moment.",
    ),
    RejectionReason.PRUNED: Explanation(
        "The node has forgotten it.",
        "Ask a node that keeps the archive.",
    ),
}


class Rejection(Exception):
    """What others did wrong. `detail` says what was seen, what is allowed, and what to do.

    Its class is the reason's own, so that it can be caught by that.
    """

    def __new__(cls, *arguments: object, **named: object) -> Any:
        """An instance of the reason's own class."""
        reason = named.get("reason", arguments[0] if arguments else None)
        if cls is Rejection and isinstance(reason, RejectionReason):
            return super().__new__(EXCEPTIONS.get(reason, cls))
        return super().__new__(cls)

    def __init__(self, reason: RejectionReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"

    def __reduce__(self) -> tuple[Any, ...]:
        return Rejection, (self.reason, self.detail)

    @property
    def remedy(self) -> str:
        """What to do about rejections of this reason."""
        return EXPLANATIONS[self.reason].remedy


class Busy(Rejection):
    """Nothing is wrong but the moment: the same may be asked again after `retry_delay_ms`."""

    def __init__(self, detail: str, retry_delay_ms: int) -> None:
        super().__init__(RejectionReason.BUSY, detail)
        self.retry_delay_ms = retry_delay_ms


def exception_name(reason: RejectionReason) -> str:
    """The name of a reason's exception: InsufficientBalance for INSUFFICIENT_BALANCE."""
    return "".join(word.capitalize() for word in reason.split("_"))


EXCEPTIONS: Final[dict[RejectionReason, type[Rejection]]] = {
    reason: type(exception_name(reason), (Rejection,), {"__doc__": told.meaning})
    for reason, told in EXPLANATIONS.items()
    if reason is not RejectionReason.BUSY  # made with a delay, by `Busy`
}
"""The exception of each reason but BUSY, which is `Busy`."""
