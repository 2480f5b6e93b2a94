"""What a validator must have said on chain before it can earn: its stake, its offer, its models.

Looked at after every executed block and every few seconds, and said only where the ledger differs
from the configuration, so that a restart repeats nothing and a lost transaction is said again.
"""

import logging
from collections.abc import Callable

from assay.v1 import transactions_pb2
from chain.execution import Ledger
from chain.keys import KeyPair
from chain.node.config import NodeConfig
from chain.node.provider import SubmitOperations
from chain.node.worker import LedgerWorker
from chain.rejections import Rejection
from chain.runtime_client import InferenceRuntime, RuntimeUnavailableError
from chain.runtime_replies import RuntimeReplyError

REPEAT_AFTER_MS = 15_000
"""How long a said duty may take to show in the ledger before it is said again."""

logger = logging.getLogger(__name__)


class Duties:
    """Keeps one validator's standing on chain as configured."""

    def __init__(
        self,
        own_index: int,
        account: KeyPair,
        config: NodeConfig,
        worker: LedgerWorker,
        runtime: InferenceRuntime,
        submit: SubmitOperations,
        clock_ms: Callable[[], int],
    ) -> None:
        self._own_index = own_index
        self._account = account
        self._config = config
        self._worker = worker
        self._runtime = runtime
        self._submit = submit
        self._clock_ms = clock_ms
        self._said_ms = -REPEAT_AFTER_MS
        self._served: dict[bytes, None] = {}
        """Every model a runtime was ever seen to serve, in the order seen: a runtime that is out
        for a while is no reason to take back what was said on chain."""

    async def check(self) -> None:
        """Say what is missing, if anything is and was not said just now."""
        if self._clock_ms() - self._said_ms < REPEAT_AFTER_MS:
            return
        try:
            if await self._runtime.ready():
                models = await self._runtime.models()
                self._served.update(dict.fromkeys(info.model for info in models))
            operations = await self._worker.read(self._missing)
            if operations:
                self._said_ms = self._clock_ms()
                await self._submit(self._account, operations)
        except Rejection as rejection:
            logger.warning("duties refused: %s", rejection)
        except (RuntimeUnavailableError, RuntimeReplyError) as error:
            logger.info("duties wait for the runtime: %s", error)

    def _missing(self, ledger: Ledger) -> list[transactions_pb2.Op]:
        operations: list[transactions_pb2.Op] = []
        served = [model for model in self._served if ledger.model(model) is not None]
        for model in served if self._config.verifier else ():
            if self._own_index not in ledger.verifiers(model):
                verifier = transactions_pb2.SetVerifier(model=model, serving=True)
                operations.append(transactions_pb2.Op(set_verifier=verifier))
        settings = self._config.provider
        offered = [model for model in served if settings.model in ("", model.hex())][:1]
        for model in offered if settings.enabled else ():
            operations += self._offer(ledger, model)
        return operations

    def _offer(self, ledger: Ledger, model: bytes) -> list[transactions_pb2.Op]:
        operations: list[transactions_pb2.Op] = []
        settings = self._config.provider
        lacking = settings.stake - ledger.account(self._account.public_key).stake
        if lacking > 0:
            operations.append(transactions_pb2.Op(stake=transactions_pb2.Stake(amount=lacking)))
        offer = ledger.offer(model, self._account.public_key)
        wanted = (settings.input_price, settings.output_price, settings.capacity, self._own_index)
        if offer is None or wanted != (
            offer.input_price,
            offer.output_price,
            offer.capacity,
            offer.operator,
        ):
            operations.append(
                transactions_pb2.Op(
                    set_offer=transactions_pb2.SetOffer(
                        model=model,
                        input_price=settings.input_price,
                        output_price=settings.output_price,
                        capacity=settings.capacity,
                        operator=self._own_index,
                    )
                )
            )
        return operations
