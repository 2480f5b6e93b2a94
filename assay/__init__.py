"""What applications import: `assay.Client`, `assay.AsyncClient`, and the events they give.

The schemas are beside it: ``assay.v1`` is made by the build from ``proto/assay/v1``. The names
here are loaded when they are first used, because `chain` itself stands on ``assay.v1``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chain.client import NodeUnavailableError
    from chain.dapp.client import AsyncClient, Client, draft_request
    from chain.dapp.events import Accepted, Answered, Event, Progress, Restarted, Settled, Tokens
    from chain.dapp.following import NotSettledInTime
    from chain.receipts import ReceiptInvalid
    from chain.rejections import Busy, Rejection, RejectionReason

_PLACES = {
    "chain.client": ("NodeUnavailableError",),
    "chain.dapp.client": ("AsyncClient", "Client", "draft_request"),
    "chain.dapp.events": (
        *("Accepted", "Answered", "Event", "Progress", "Restarted", "Settled", "Tokens"),
    ),
    "chain.dapp.following": ("NotSettledInTime",),
    "chain.receipts": ("ReceiptInvalid",),
    "chain.rejections": ("Busy", "Rejection", "RejectionReason"),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "Accepted",
    "Answered",
    "AsyncClient",
    "Busy",
    "Client",
    "Event",
    "NodeUnavailableError",
    "NotSettledInTime",
    "Progress",
    "ReceiptInvalid",
    "Rejection",
    "RejectionReason",
    "Restarted",
    "Settled",
    "Tokens",
    "draft_request",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'assay' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
