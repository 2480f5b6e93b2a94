"""Tells the chain what the core saw: validators that signed two things no honest one signs.

Said until the ledger has it, by anybody: a lost transaction is sent again, and who comes second
is told that nothing is left to do. What was seen is kept in memory only; a fault worth hiding
from one validator is still seen by the others.
"""

import logging
from collections.abc import Callable

from assay.v1 import transactions_pb2
from chain.execution import Ledger
from chain.keys import KeyPair
from chain.node.provider import SubmitOperations
from chain.node.worker import LedgerWorker
from chain.rejections import Rejection, RejectionReason
from consensus.evidence import Evidence
from consensus.wire import encode

REPEAT_AFTER_MS = 15_000
"""How long a report may take to show in the ledger before it is sent again."""

logger = logging.getLogger(__name__)


class Accusations:
    """The first piece of evidence against each validator, until it is convicted."""

    def __init__(
        self,
        account: KeyPair,
        worker: LedgerWorker,
        submit: SubmitOperations,
        clock_ms: Callable[[], int],
    ) -> None:
        self._account = account
        self._worker = worker
        self._submit = submit
        self._clock_ms = clock_ms
        self._said_ms = -REPEAT_AFTER_MS
        self._evidence: dict[int, Evidence] = {}

    def note(self, evidence: Evidence) -> None:
        """Take what the core found."""
        if evidence.culprit not in self._evidence:
            logger.error(
                "validator %d broke a rule: %s, evidence %s",
                evidence.culprit,
                evidence.fault.name,
                encode(evidence).hex(),
            )
            self._evidence[evidence.culprit] = evidence

    async def check(self) -> None:
        """Report what the ledger does not know, if nothing was reported just now."""
        if not self._evidence or self._clock_ms() - self._said_ms < REPEAT_AFTER_MS:
            return
        convicted = await self._worker.read(Ledger.convictions)
        for culprit, evidence in list(self._evidence.items()):  # more may be seen meanwhile
            if culprit in convicted:
                continue
            self._said_ms = self._clock_ms()
            report = transactions_pb2.ReportFault(evidence=encode(evidence))
            try:
                await self._submit(self._account, [transactions_pb2.Op(report_fault=report)])
            except Rejection as rejection:
                if rejection.reason is not RejectionReason.ALREADY_CONVICTED:
                    logger.warning("report of validator %d refused: %s", culprit, rejection)
