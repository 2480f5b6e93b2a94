"""Validators: registration, keys, leaving, jail, and the sets of epochs.

Rules:
- an id is for life, and so is a key's owner: no validator can have a key that was another's;
- a validator's stake is its account's, the one that providing and verifying binds and that every
  slash takes from; what it weighs in an epoch was elected two epochs before (`election`);
- what it unstakes stays slashable as long as evidence is heard against a set in which it weighs
  more than it has staked, and `unbonding_epochs` at least;
- who led no block of an epoch, and could expect many, is jailed: it is no candidate until it says
  that it is back. A conviction (`faults`) is for good.

The certificate is not parsed here, as parsers differ: one that is none makes its owner unreachable.
"""

from collections.abc import Iterator, Mapping

from assay.v1 import transactions_pb2 as pb
from chain.contacts import CONTACTS_MAX, Contact
from chain.events import EventKind, ValidatorChange
from chain.execution import transfers
from chain.execution.bonds import put_validator
from chain.execution.election import elect
from chain.execution.scope import Scope
from chain.genesis import binding_message
from chain.parameters import Parameters
from chain.records import (
    CERTIFICATE_BYTES_MAX,
    VALIDATOR_ADDRESS_BYTES_MAX,
    ElectedSet,
    KeyOwner,
    KeyRole,
    ProposedBlocks,
    RegisteredValidator,
)
from chain.rejections import Rejection, RejectionReason
from chain.state import ACCOUNT_BYTES, EPOCH_BYTES, INDEX_BYTES, State
from consensus import vrf
from consensus.values import Validator, ValidatorSet
from ext import signatures
from ext.hashing import tagged_hash

SETS_KEPT_BEFORE = 2
"""Epochs before the one under way whose sets are kept, for evidence."""
REGISTERED_MAX = CONTACTS_MAX
"""At a time, without those who have wholly left."""
PORT_MAX = 65_535
IDS_MAX = 1 << (8 * INDEX_BYTES)


def key_claim(chain_id: str, account: bytes, signing_key: bytes, vrf_key: bytes) -> bytes:
    """What both keys sign, so that nobody registers another's."""
    return tagged_hash(b"validator-key", chain_id.encode(), account, signing_key, vrf_key)


def enter_genesis(
    state: State,
    parameters: Parameters,
    validators: ValidatorSet,
    contacts: Mapping[int, Contact],
) -> None:
    """The first validators' rows, and the sets that they make. With epochs their voting stake is
    their accounts' stake, issued with them; without, it is a weight and nothing else."""
    for member in validators.members:
        contact = contacts.get(member.index)
        record = RegisteredValidator(
            account=member.account,
            signing_key=member.signing_key,
            vrf_key=member.vrf_key,
            address="" if contact is None else contact.address,
            certificate=b"" if contact is None else contact.certificate,
            changed_epoch=0,
            leaving=False,
            jailed_until_epoch=0,
            locked_until_epoch=0,
        )
        state.put(state.validators, index_key(member.index), record)
        for key, role in _keys_of(record):
            state.put(state.validator_keys, key, KeyOwner(member.index, role))
        if parameters.epoch_blocks:
            balance = (state.accounts.get(member.account) or (0,))[0]
            state.accounts.put(member.account, balance, member.stake, 0, 0)
    for epoch in (0, 1) if parameters.epoch_blocks else (0,):
        state.put(state.elected_sets, epoch_key(epoch), ElectedSet(validators.members))


def stored_sets(state: State) -> dict[int, ValidatorSet]:
    """All sets that are kept, by epoch."""
    return {
        int.from_bytes(key, "big"): ValidatorSet(int.from_bytes(key, "big"), elected.members)
        for key, elected in state.elected_sets.scan()
    }


def contacts_of(state: State) -> Iterator[Contact]:
    """Everybody registered who has not wholly left, in order of id."""
    for key, record in state.validators.scan():
        if record.certificate:
            yield Contact(int.from_bytes(key, "big"), record.address, record.certificate)


def register_validator(scope: Scope, sender: bytes, message: pb.RegisterValidator) -> None:
    """Make the account a candidate; one that has left comes back under its id."""
    if not scope.parameters.epoch_blocks:
        raise _bad("this chain has one epoch for ever: its validators are those of genesis")
    index = scope.validator_of(sender)
    before = None if index is None else scope.validator(index)
    if before is not None and not before.leaving:
        raise _bad(f"this account is validator {index} already; change its keys by RotateValidator")
    if index is not None and scope.conviction(index) is not None:
        raise _bad(f"validator {index} was convicted, and stays out for good")
    if before is None or not before.certificate:
        _check_place(scope)
    if index is None:
        index = _next_id(scope)
    keys = message.keys
    if not (keys.signing_key and keys.vrf_key and keys.address and keys.certificate):
        raise _bad("a registration needs signing_key, vrf_key, address and certificate")
    record = _with_keys(scope, sender, before, keys)
    # Who was jailed and has left is no less jailed.
    record = record._replace(leaving=False)
    _take_keys(scope, index, record)
    put_validator(scope, index, record)
    if message.stake:
        transfers.stake(scope, sender, pb.Stake(amount=message.stake))
    _check_stake(scope, sender)
    _emit(scope, index, record, ValidatorChange.REGISTERED)


def rotate_validator(scope: Scope, sender: bytes, message: pb.RotateValidator) -> None:
    """Other keys, another address; once an epoch."""
    index, record = _own(scope, sender)
    if record.changed_epoch == scope.epoch and scope.epoch:
        raise Rejection(
            RejectionReason.TOO_SOON,
            f"validator {index} changed its keys in this epoch ({scope.epoch}); wait for the next",
        )
    keys = message.keys
    if not (keys.signing_key or keys.vrf_key or keys.address or keys.certificate):
        raise _bad("nothing is to be changed")
    record = _with_keys(scope, sender, record, keys)
    _take_keys(scope, index, record)
    put_validator(scope, index, record)
    _emit(scope, index, record, ValidatorChange.ROTATED)


def leave_validators(scope: Scope, sender: bytes) -> None:
    """No candidate from now on."""
    index, record = _own(scope, sender)
    record = record._replace(leaving=True)
    put_validator(scope, index, record)
    _emit(scope, index, record, ValidatorChange.LEAVING)


def unjail(scope: Scope, sender: bytes) -> None:
    """A candidate again after the term. Raises Rejection."""
    index, record = _own(scope, sender)
    if scope.conviction(index) is not None:
        raise _jailed(f"validator {index} was convicted, and stays out for good")
    if not record.jailed_until_epoch:
        raise _bad(f"validator {index} is not jailed")
    if scope.epoch < record.jailed_until_epoch:
        raise _jailed(
            f"validator {index} is jailed until epoch {record.jailed_until_epoch}, this is "
            f"{scope.epoch}: ask again then"
        )
    _check_stake(scope, sender)
    record = record._replace(jailed_until_epoch=0)
    put_validator(scope, index, record)
    _emit(scope, index, record, ValidatorChange.UNJAILED)


def count_proposal(scope: Scope, proposer: int) -> None:
    """A block became final that the validator has led."""
    key = index_key(proposer)
    before = scope.state.proposed_blocks.get(key)
    count = 1 if before is None else before.count + 1
    scope.state.put(scope.state.proposed_blocks, key, ProposedBlocks(count))


def end_epoch(scope: Scope) -> None:
    """At an epoch's last block: jail the idle, elect the set of the epoch after the next, forget
    what nobody asks for any more."""
    _jail_idle(scope)
    state, epoch = scope.state, scope.epoch
    eligible, convicted, registered = set(), set(), {}
    for key, record in state.validators.scan():
        index = int.from_bytes(key, "big")
        stake = scope.stake_of(record.account)
        registered[index] = Validator(
            index, record.signing_key, record.vrf_key, record.account, stake
        )
        if scope.conviction(index) is not None:
            convicted.add(index)
        elif _is_candidate(record) and stake >= scope.parameters.validator_stake_min:
            eligible.add(index)
    elected = elect(registered, eligible, convicted, scope.sets[epoch + 1], scope.parameters)
    state.put(state.elected_sets, epoch_key(elected.epoch), ElectedSet(elected.members))
    if epoch >= SETS_KEPT_BEFORE:
        state.put(state.elected_sets, epoch_key(epoch - SETS_KEPT_BEFORE), None)
        del scope.sets[epoch - SETS_KEPT_BEFORE]
    scope.sets[elected.epoch] = elected
    scope.emit(EventKind.SET_ELECTED, elected.digest(), amount=elected.epoch)
    _forget_gone(scope)


def index_key(index: int) -> bytes:
    """The key of a validator's rows."""
    return index.to_bytes(INDEX_BYTES, "big")


def epoch_key(epoch: int) -> bytes:
    """The key of an epoch's rows."""
    return epoch.to_bytes(EPOCH_BYTES, "big")


def _own(scope: Scope, sender: bytes) -> tuple[int, RegisteredValidator]:
    if not scope.parameters.epoch_blocks:
        raise _bad("this chain has one epoch for ever: its validators stay as they are")
    index = scope.validator_of(sender)
    record = None if index is None else scope.validator(index)
    if index is None or record is None or record.leaving:
        raise Rejection(
            RejectionReason.NOT_A_VALIDATOR,
            "this account has registered no validator, or has left: register it first",
        )
    return index, record


def _check_place(scope: Scope) -> None:
    """Refuse one more than nodes may have contacts. Raises Rejection."""
    rows = scope.state.validators.scan()
    if sum(bool(record.certificate) for _, record in rows) >= REGISTERED_MAX:
        raise _too_many(
            f"{REGISTERED_MAX} validators are registered, no more are allowed; wait until one has "
            "left"
        )


def _next_id(scope: Scope) -> int:
    """The lowest id that nobody ever had. Raises Rejection."""
    count = len(scope.state.validators)
    if count >= IDS_MAX:
        raise _too_many(f"all {IDS_MAX} ids were given; come back by an account that has one")
    return count


def _with_keys(
    scope: Scope, account: bytes, before: RegisteredValidator | None, keys: pb.ValidatorKeys
) -> RegisteredValidator:
    """The record with what is given, checked. Raises Rejection."""
    record = RegisteredValidator(
        account=account,
        signing_key=keys.signing_key or (before.signing_key if before else b""),
        vrf_key=keys.vrf_key or (before.vrf_key if before else b""),
        address=keys.address or (before.address if before else ""),
        certificate=keys.certificate or (before.certificate if before else b""),
        changed_epoch=scope.epoch,
        leaving=before.leaving if before else False,
        jailed_until_epoch=before.jailed_until_epoch if before else 0,
        locked_until_epoch=before.locked_until_epoch if before else 0,
    )
    if len(record.signing_key) != ACCOUNT_BYTES or len(record.vrf_key) != ACCOUNT_BYTES:
        raise _bad(f"a signing key and a VRF key have {ACCOUNT_BYTES} bytes")
    if len({account, record.signing_key, record.vrf_key}) != 3:
        raise _bad("account, signing key and VRF key must be three different keys")
    _check_address(record.address)
    if len(record.certificate) > CERTIFICATE_BYTES_MAX:
        raise _bad(f"the certificate has more than {CERTIFICATE_BYTES_MAX} bytes")
    claim = key_claim(scope.chain_id, account, record.signing_key, record.vrf_key)
    own = signatures.verify(record.signing_key, claim, keys.possession)
    if (keys.signing_key or keys.vrf_key) and not own:
        raise _bad("possession is not signing_key's signature over the claim")
    if keys.vrf_key and vrf.verify(record.vrf_key, claim, keys.vrf_proof) is None:
        raise _bad("vrf_proof is not vrf_key's proof on the claim")
    if keys.signing_key or keys.certificate:
        message = binding_message(record.certificate)
        if not signatures.verify(record.signing_key, message, keys.binding):
            raise _bad("binding is not signing_key's signature over the certificate")
    return record


def _check_address(address: str) -> None:
    """HOST:PORT in printable ASCII: what is printable beyond it changes with Unicode's tables."""
    host, separator, port = address.rpartition(":")
    good = (
        len(address) <= VALIDATOR_ADDRESS_BYTES_MAX
        and all("!" <= character <= "~" for character in address)
        and separator
        and host
        and port.isdecimal()
        and str(int(port)) == port
        and 1 <= int(port) <= PORT_MAX
    )
    if not good:
        shown = address[:VALIDATOR_ADDRESS_BYTES_MAX]
        raise _bad(f"address is {shown!r}: give HOST:PORT, in printable ASCII")


def _check_stake(scope: Scope, account: bytes) -> None:
    needed, stake = transfers.stake_needed(scope, account), scope.stake_of(account)
    if stake < needed:
        raise Rejection(
            RejectionReason.INSUFFICIENT_STAKE,
            f"a validator's account needs a stake of {needed} grain with what it binds otherwise, "
            f"it has {stake}: stake more first",
        )


def _keys_of(record: RegisteredValidator) -> Iterator[tuple[bytes, KeyRole]]:
    yield record.account, KeyRole.ACCOUNT
    yield record.signing_key, KeyRole.SIGNING
    yield record.vrf_key, KeyRole.VRF
    if record.certificate:
        yield tagged_hash(b"tls", record.certificate), KeyRole.CERTIFICATE


def _take_keys(scope: Scope, index: int, record: RegisteredValidator) -> None:
    """Make the keys this validator's for good. Raises Rejection if one was ever another's."""
    table = scope.state.validator_keys
    for key, role in _keys_of(record):
        owner = table.get(key)
        if owner is None:
            scope.state.put(table, key, KeyOwner(index, role))
        elif owner != KeyOwner(index, role):
            raise _bad(
                f"the {role.name.lower().replace('_', ' ')} {key.hex()} is or was another's, or "
                "serves another purpose: make a new one"
            )


def _is_candidate(record: RegisteredValidator) -> bool:
    return not record.leaving and not record.jailed_until_epoch


def _jail_idle(scope: Scope) -> None:
    """Jail who led no block of the epoch that ends, and could expect many."""
    parameters, members, table = scope.parameters, scope.validators, scope.state.proposed_blocks
    for member in members.members:
        expected = parameters.epoch_blocks * member.stake // members.stake_total
        record = scope.validator(member.index)
        idle = table.get(index_key(member.index)) is None
        if idle and expected >= parameters.idle_blocks_min and _is_candidate(record):
            until = scope.epoch + 1 + parameters.jail_epochs
            record = record._replace(jailed_until_epoch=until)
            put_validator(scope, member.index, record)
            _emit(scope, member.index, record, ValidatorChange.JAILED)
    for key, _ in list(table.scan()):
        scope.state.put(table, key, None)


def _forget_gone(scope: Scope) -> None:
    """Who has left, or was convicted, and is in no set that is kept, needs no contact, whatever it
    has at stake: a grain left there would hold one of few places for ever."""
    for key, record in list(scope.state.validators.scan()):
        index = int.from_bytes(key, "big")
        is_out = record.leaving or scope.conviction(index) is not None
        seated = any(index in elected.by_index for elected in scope.sets.values())
        if record.certificate and is_out and not seated:
            put_validator(scope, index, record._replace(address="", certificate=b""))


def _emit(scope: Scope, index: int, record: RegisteredValidator, change: ValidatorChange) -> None:
    scope.emit(EventKind.VALIDATOR_CHANGED, record.account, amount=index, code=change)


def _bad(detail: str) -> Rejection:
    return Rejection(RejectionReason.BAD_VALIDATOR, detail)


def _too_many(detail: str) -> Rejection:
    return Rejection(RejectionReason.TOO_MANY_VALIDATORS, detail)


def _jailed(detail: str) -> Rejection:
    return Rejection(RejectionReason.JAILED, detail)
