"""The governed numbers of one chain: timings, fees, shares, bounds. All integers, all in genesis.

Amounts are in grain, times in milliseconds, shares in basis points (10,000 is the whole).
"""

from dataclasses import dataclass, fields

from chain.records import COMMITTEE_MAX
from consensus.values import VALIDATORS_MAX
from consensus.wire import U16, U32, U64

BASIS_POINTS = 10_000
GRAIN_PER_ASY = 1_000_000_000
SUPPLY_MAX = (1 << 63) - 1
"""All grain of a chain, voting stake with epochs included; half of U64, so that no sum of amounts
can overflow a record."""
ATTEMPTS_LIMIT = 8
"""As many providers as a job record can remember as tried."""
DURATION_MS_MAX = 31 * 24 * 3_600_000
AUDIT_DELAY_BLOCKS_MAX = 256
EPOCH_BLOCKS_MIN = 4
UNBONDING_EPOCHS_MIN = 5
"""A set is elected two epochs before it acts, and evidence heard for two after it."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Devnet defaults; genesis may set others. `__post_init__` refuses what cannot work."""

    assign_within_ms: U32 = 60_000
    """How long a job waits for a provider with free capacity before it is refunded."""
    answer_within_ms_default: U32 = 60_000
    answer_within_ms_min: U32 = 1_000
    answer_within_ms_max: U32 = 600_000
    audit_within_ms: U32 = 60_000
    """How long an answered job waits for enough verifiers before it is refunded."""
    commit_within_ms: U32 = 60_000
    commit_grace_ms: U32 = 10_000
    """Least time the rest of a committee has once a quorum of it has committed."""
    reveal_within_ms: U32 = 30_000
    unbonding_ms: U64 = 600_000
    """Longer than a job takes from its answer to the last word of its third round, so that nobody
    leaves with what that word may cost."""

    fee_per_transaction: U64 = 10_000
    fee_per_operation: U64 = 1_000
    fee_per_byte: U64 = 10
    fee_burn_bps: U16 = 5_000
    """Of each fee; the rest goes to the owner of the lane that carried the transaction."""

    attempts_max: U16 = 3
    audit_delay_blocks: U16 = 2
    committee_size: U16 = 3
    escalated_committee_size: U16 = COMMITTEE_MAX
    reveal_quorum: U16 = 2
    """Fewest verdicts (not ABSTAIN) that a ruling may rest on; a model may be registered with
    more, up to `committee_size`."""
    job_rows_kept_blocks: U32 = 1_024
    """How long a final job stays in state; afterwards its receipt says what it came to."""
    output_tokens_max: U32 = 4_096
    """A longer result would not fit a transaction."""

    stake_min_per_offer: U64 = 100 * GRAIN_PER_ASY
    stake_weight_cap: U64 = 10_000 * GRAIN_PER_ASY
    """Stake beyond this does not bring a provider more jobs."""
    slash_bps: U16 = 1_000
    """Of stake and unbonding, when at least two thirds of a committee said FAIL."""
    eject_slash_bps: U16 = 1_000
    """Of a provider's stake and unbonding, when many jobs together show that it is not honest."""
    appeal_within_ms: U64 = 600_000
    """How long what an ejected provider forfeits is held before it is gone."""
    appeal_bond: U64 = GRAIN_PER_ASY
    """Of who appeals, beside a seat's price for each arbiter."""
    fault_slash_bps: U16 = 5_000
    """Of a validator's, when it was shown to have signed what no honest one does."""
    slash_burn_bps: U16 = 5_000
    """Of what is slashed; the rest goes to the treasury, nothing to the requester."""

    verification_price: U64 = 200_000
    """Of one seat on a job's committee, whatever the job."""
    verification_token_price: U64 = 4_000
    """Of one seat, for each input and output token: a verification reads them all once."""
    verifier_stake_min: U64 = 30 * GRAIN_PER_ASY
    """Who says that it verifies a model holds this; with less than half of it nobody is drawn."""
    wrong_pass_slash: U64 = 300_000_000
    """Of a seat that passed, or hid its word about, what two thirds then failed beyond doubt."""
    trap_every_jobs: U32 = 100
    """The treasury pays for one trap of an offer in so many jobs that it had verified."""
    trap_reward: U64 = 500_000
    """To the provider of such a trap, for its transactions."""

    epoch_blocks: U32 = 0
    """Blocks of one epoch, after which the validator set may be another; 0: one epoch for ever."""
    validators_max: U16 = 100
    """Members of a set; more who want to be wait until they have more stake."""
    validator_stake_min: U64 = 100 * GRAIN_PER_ASY
    """With less nobody is elected."""
    churn_max_bps: U16 = 3_334
    """Of a set's stake, that may at most go, and come, from one epoch to the next; rounded up, so
    that three epochs replace everybody, and two sets that follow each other overlap."""
    unbonding_epochs: U16 = 5
    """That begin after a validator's unstaking before the stake returns; evidence against the
    sets it stands for is heard for four."""
    jail_epochs: U16 = 2
    """That a validator which led no block of an epoch stays out at least."""
    idle_blocks_min: U16 = 20
    """Nobody is jailed who could expect to lead fewer blocks of the epoch than this."""
    model_price: U64 = GRAIN_PER_ASY
    """Burned for a registered model: its row stays for ever and is in the list that all who ask
    read first, so some ten thousand for no more than their fees would close the market."""
    royalty_bps_max: U16 = 1_000
    treasury_bps: U16 = 300
    burn_bps: U16 = 200
    """Royalty, treasury and burn are shares of the tokens' price; the provider has the rest."""

    def seat_price(self, input_tokens: int, output_tokens: int) -> int:
        """Grain for one verification of a job with so many tokens."""
        tokens = input_tokens + output_tokens
        return self.verification_price + self.verification_token_price * tokens

    def epoch_of(self, height: int) -> int:
        """The epoch of the block at a height; genesis, height 0, belongs to epoch 0."""
        return (height - 1) // self.epoch_blocks if self.epoch_blocks and height else 0

    def is_boundary(self, height: int) -> bool:
        """Whether the block at a height is its epoch's last."""
        return self.epoch_blocks > 0 and height > 0 and height % self.epoch_blocks == 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{field.name} is {value!r}, must be an integer of at least 0")
            if field.name.endswith("_bps") and value > BASIS_POINTS:
                raise ValueError(f"{field.name} is {value}, at most {BASIS_POINTS} is a share")
            if "_ms" in field.name and not 1 <= value <= DURATION_MS_MAX:
                raise ValueError(f"{field.name} is {value}, allowed are 1 to {DURATION_MS_MAX}")
        if not (
            self.answer_within_ms_min <= self.answer_within_ms_default <= self.answer_within_ms_max
        ):
            raise ValueError("answer_within_ms_default must lie between its minimum and maximum")
        if not 1 <= self.attempts_max <= ATTEMPTS_LIMIT:
            raise ValueError(f"attempts_max is {self.attempts_max}, allowed: 1 to {ATTEMPTS_LIMIT}")
        if not 1 <= self.audit_delay_blocks <= AUDIT_DELAY_BLOCKS_MAX:
            raise ValueError(
                f"audit_delay_blocks is {self.audit_delay_blocks}, allowed are 1 (a draw needs a "
                f"later beacon) to {AUDIT_DELAY_BLOCKS_MAX}"
            )
        if not (
            1
            <= self.reveal_quorum
            <= self.committee_size
            <= self.escalated_committee_size
            <= COMMITTEE_MAX
        ):
            raise ValueError(
                "needs 1 <= reveal_quorum <= committee_size <= escalated_committee_size <= "
                f"{COMMITTEE_MAX}, got {self.reveal_quorum}, {self.committee_size}, "
                f"{self.escalated_committee_size}"
            )
        self._check_epochs()
        if self.royalty_bps_max + self.treasury_bps + self.burn_bps > BASIS_POINTS:
            raise ValueError("royalty_bps_max, treasury_bps and burn_bps exceed the whole price")
        if self.output_tokens_max < 1 or self.stake_weight_cap < 1:
            raise ValueError("output_tokens_max and stake_weight_cap must be at least 1")

    def _check_epochs(self) -> None:
        if self.epoch_blocks and self.epoch_blocks < EPOCH_BLOCKS_MIN:
            raise ValueError(
                f"epoch_blocks is {self.epoch_blocks}, allowed are 0 (one epoch for ever) and "
                f"{EPOCH_BLOCKS_MIN} or more"
            )
        if not 1 <= self.validators_max <= VALIDATORS_MAX:
            raise ValueError(
                f"validators_max is {self.validators_max}, allowed are 1 to {VALIDATORS_MAX}"
            )
        if self.validator_stake_min < 1 or self.churn_max_bps < 1:
            raise ValueError("validator_stake_min and churn_max_bps must be at least 1")
        if self.unbonding_epochs < UNBONDING_EPOCHS_MIN or self.jail_epochs < 1:
            raise ValueError(
                f"unbonding_epochs must be at least {UNBONDING_EPOCHS_MIN}, jail_epochs at least 1"
            )
