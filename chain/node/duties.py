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
from chain.pairs import verifier_profiles
from chain.records import Model
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
        self._served: dict[bytes, str] = {}
        """Engine profile of every model a runtime was ever seen to serve, in the order seen: a
        runtime that is out for a while is no reason to take back what was said on chain."""
        self._serving: frozenset[bytes] = frozenset()
        """Models that a runtime serves now: for these alone a word is given that is not on chain,
        so that what the chain took back for abstaining waits for the runtime."""
        self._told: dict[tuple[bytes, str], str] = {}
        """Profile that the operator was told to be of no use, by model and use."""

    async def check(self) -> None:
        """Say what is missing, if anything is and was not said just now."""
        if self._clock_ms() - self._said_ms < REPEAT_AFTER_MS:
            return
        try:
            infos = await self._runtime.models() if await self._runtime.ready() else ()
            self._served |= {info.model: info.engine_profile for info in infos}
            self._serving = frozenset(info.model for info in infos)
        except (RuntimeUnavailableError, RuntimeReplyError) as error:
            logger.info("duties wait for the runtime: %s", error)
            return
        # Apart, because an offer may have to wait for others: what this validator verifies with
        # must not wait with it, or they would wait for each other.
        for operations in await self._worker.read(self._missing):
            self._said_ms = self._clock_ms()
            try:
                await self._submit(self._account, operations)
            except Rejection as rejection:
                logger.warning("duties refused: %s", rejection)

    def _missing(self, ledger: Ledger) -> list[list[transactions_pb2.Op]]:
        """Operations of each transaction that has to be sent."""
        registered = [
            (identity, model, profile)
            for identity, profile in self._served.items()
            if (model := ledger.model(identity)) is not None
        ]
        announcements: list[transactions_pb2.Op] = []
        for identity, model, profile in registered if self._config.verifier else ():
            announcements += self._announcement(ledger, identity, model, profile)
        bond = self._bond_lacking(ledger, registered)
        if bond:
            announcements.insert(0, _stake(bond))
        settings = self._config.provider
        offers: list[transactions_pb2.Op] = []
        offered = [item for item in registered if settings.model in ("", item[0].hex())][:1]
        for identity, model, profile in offered if settings.enabled else ():
            offers += self._offer(ledger, identity, model, profile, bond)
        return [operations for operations in (announcements, offers) if operations]

    def _bond_lacking(self, ledger: Ledger, registered: list[tuple[bytes, Model, str]]) -> int:
        """Stake without which this validator is not, or soon no longer, drawn as a verifier."""
        verifies = self._config.verifier and any(
            profile in verifier_profiles(model) for _, model, profile in registered
        )
        if not verifies:
            return 0
        account = self._account.public_key
        needed = ledger.stake_needed(account, verifying=True)
        return max(0, needed - ledger.account(account).stake)

    def _announcement(
        self, ledger: Ledger, identity: bytes, model: Model, profile: str
    ) -> list[transactions_pb2.Op]:
        said = ledger.verifiers(identity).get(self._own_index)
        able = profile in verifier_profiles(model)
        if not able:
            self._tell(identity, model, profile, "verify")
        if (None if said is None else said.engine_profile) == (profile if able else None):
            return []
        if said is None and identity not in self._serving:
            return []
        verifier = transactions_pb2.SetVerifier(
            model=identity, serving=able, engine_profile=profile if able else ""
        )
        return [transactions_pb2.Op(set_verifier=verifier)]

    def _tell(self, identity: bytes, model: Model, profile: str, what: str) -> None:
        if self._told.get((identity, what)) != profile:
            self._told[identity, what] = profile
            logger.warning(
                "no calibrated pair: %s is registered without one to %s with %s; run another "
                "engine, or have this one calibrated",
                *(model.name, what, profile),
            )

    def _offer(
        self, ledger: Ledger, identity: bytes, model: Model, profile: str, bond: int
    ) -> list[transactions_pb2.Op]:
        """`bond` is what is about to be staked for verifying."""
        settings = self._config.provider
        before = ledger.offer(identity, self._account.public_key)
        able = bool(verifier_profiles(model, profile))
        if not able:
            self._tell(identity, model, profile, "answer")
        if not able and (before is None or before.capacity == 0):
            return []
        wanted = transactions_pb2.SetOffer(
            model=identity,
            input_price=settings.input_price,
            output_price=settings.output_price,
            capacity=settings.capacity if able else 0,
            operator=self._own_index,
            engine_profile=profile,
        )
        operations: list[transactions_pb2.Op] = []
        wanted_stake = settings.stake
        if self._config.verifier:
            wanted_stake += ledger.parameters.verifier_stake_min
        lacking = wanted_stake - ledger.account(self._account.public_key).stake - bond
        if lacking > 0:
            operations.append(_stake(lacking))
        if before is None or (
            *(before.input_price, before.output_price, before.capacity),
            *(before.operator, before.engine_profile),
        ) != (
            *(wanted.input_price, wanted.output_price, wanted.capacity),
            *(wanted.operator, wanted.engine_profile),
        ):
            operations.append(transactions_pb2.Op(set_offer=wanted))
        return operations


def _stake(amount: int) -> transactions_pb2.Op:
    return transactions_pb2.Op(stake=transactions_pb2.Stake(amount=amount))
