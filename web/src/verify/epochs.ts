/**
 * The validators of an epoch, and how the next ones are followed to: `consensus/epochs.py` in its
 * order. An epoch's last block names the digest of the next set, and its own validators sign it.
 */
import { ed25519 } from "@noble/curves/ed25519.js";
import { equal, littleEndian, taggedHash, toHex, utf8 } from "./bytes";
import type { Genesis } from "./genesis";
import { decodeRecord, encodeRecord, type Fields, WireError } from "./wire";

export interface ValidatorSet {
  epoch: bigint;
  members: Map<number, { signingKey: Uint8Array; stake: bigint }>;
  stakeTotal: bigint;
  /** The least stake that is more than two thirds of the total. */
  quorumStake: bigint;
}

/** What was given as the end of an epoch is none; the message says why. */
export class BoundaryInvalid extends Error {}

/** Signers who cannot stand for a set, as a receipt tells them apart. */
export class CertificateInvalid extends Error {
  constructor(readonly reason: "NO_QUORUM" | "BAD_SIGNATURE", detail: string) {
    super(detail);
  }
}

const EPOCH_BYTES = 8;
const UNIQUE = ["signing_key", "vrf_key", "account"];

export function genesisSet(genesis: Genesis): ValidatorSet {
  return {
    epoch: 0n,
    members: new Map(genesis.validators.map((member) => [member.index, member])),
    stakeTotal: genesis.stakeTotal,
    quorumStake: genesis.quorumStake,
  };
}

export function blockDigest(block: Fields): Uint8Array {
  return taggedHash("block", encodeRecord("Block", block));
}

/** Stake behind a certificate of the set's epoch. Raises CertificateInvalid. */
export function checkSigners(certificate: Fields, trusted: ValidatorSet, chainId: string): bigint {
  const signers = (certificate["signers"] as bigint[]).map(Number);
  const signatures = certificate["signatures"] as Uint8Array[];
  if (signers.length !== signatures.length) {
    throw new CertificateInvalid("NO_QUORUM", `${signers.length} signers and ${signatures.length} signatures`);
  }
  const rising = signers.every((signer, at) => at === 0 || signer > (signers[at - 1] ?? -1));
  if (!rising || signers.some((signer) => !trusted.members.has(signer))) {
    throw new CertificateInvalid("NO_QUORUM",
      `signers ${signers.join(", ")} must rise and be of ${[...trusted.members.keys()].join(", ")}`);
  }
  const stake = signers.reduce((sum, signer) => sum + (trusted.members.get(signer)?.stake ?? 0n), 0n);
  if (stake < trusted.quorumStake) {
    throw new CertificateInvalid("NO_QUORUM",
      `signed by ${stake} of ${trusted.stakeTotal} stake, needed ${trusted.quorumStake}`);
  }
  const message = taggedHash("vote", utf8(chainId), encodeRecord("VoteBody", certificate["body"] as Fields));
  signers.forEach((signer, at) => {
    const key = trusted.members.get(signer)?.signingKey ?? new Uint8Array();
    if (!isSigned(signatures[at] ?? new Uint8Array(), message, key)) {
      throw new CertificateInvalid("BAD_SIGNATURE", `validator ${signer}'s signature does not cover this vote`);
    }
  });
  return stake;
}

/** The chain's acceptance rule is ZIP-215. */
function isSigned(signature: Uint8Array, message: Uint8Array, key: Uint8Array): boolean {
  try {
    return ed25519.verify(signature, message, key, { zip215: true });
  } catch {
    return false;
  }
}

/** One boundary as receipts carry it. Raises BoundaryInvalid. */
export function decodeBoundary(data: Uint8Array): Fields {
  try {
    return decodeRecord("EpochBoundary", data);
  } catch (error) {
    if (error instanceof WireError) throw new BoundaryInvalid(`no boundary: ${error.message}`);
    throw error;
  }
}

/** The next epoch's validators, on the word of the trusted ones. Raises BoundaryInvalid. */
export function follow(boundary: Fields, trusted: ValidatorSet, chainId: string): ValidatorSet {
  const block = boundary["block"] as Fields;
  const certificate = boundary["certificate"] as Fields;
  const place = `boundary of epoch ${number(block, "epoch")}`;
  const fault = pathFault(block, boundary["descendants"] as Fields[], certificate["body"] as Fields);
  if (fault !== null) throw new BoundaryInvalid(`${place}: ${fault}`);
  if (number(block, "epoch") !== trusted.epoch) {
    throw new BoundaryInvalid(`${place}: trusted is the set of ${trusted.epoch}`);
  }
  try {
    checkSigners(certificate, trusted, chainId);
  } catch (error) {
    if (error instanceof CertificateInvalid) throw new BoundaryInvalid(`${place}: ${error.message}`);
    throw error;
  }
  const members = boundary["members"] as Fields[];
  const epoch = trusted.epoch + 1n;
  const digest = taggedHash("validators", littleEndian(epoch, EPOCH_BYTES),
    ...members.map((member) => encodeRecord("Validator", member)));
  if (!isSet(members)) throw new BoundaryInvalid(`${place}: its members make no set`);
  if (!equal(digest, block["next_validators"] as Uint8Array)) {
    throw new BoundaryInvalid(`${place}: the members given have digest ${toHex(digest)}`);
  }
  const stakeTotal = members.reduce((sum, member) => sum + number(member, "stake"), 0n);
  return {
    epoch,
    members: new Map(members.map((member) => [Number(member["index"]), {
      signingKey: member["signing_key"] as Uint8Array,
      stake: number(member, "stake"),
    }])),
    stakeTotal,
    quorumStake: (stakeTotal * 2n) / 3n + 1n,
  };
}

function isSet(members: Fields[]): boolean {
  const rising = members.every(
    (member, at) => at === 0 || number(member, "index") > number(members[at - 1] ?? {}, "index"));
  const unique = UNIQUE.every((name) =>
    new Set(members.map((member) => toHex(member[name] as Uint8Array))).size === members.length);
  return members.length > 0 && rising && unique && members.every((member) => number(member, "stake") > 0n);
}

/** Why the certificate, if its signatures are good, does not make the boundary final. */
function pathFault(boundary: Fields, fillers: Fields[], body: Fields): string | null {
  if (isZero(boundary["next_validators"] as Uint8Array)) return "the block is not the last of its epoch";
  let below = boundary;
  for (const block of fillers) {
    const follows = equal(block["parent"] as Uint8Array, blockDigest(below)) &&
      number(block, "parent_view") === number(below, "view");
    if (!follows || !isFiller(block, below)) return `block ${number(block, "height")} is no filler`;
    below = block;
  }
  const named = body["kind"] === "FINALIZE" && equal(body["digest"] as Uint8Array, blockDigest(below)) &&
    ["epoch", "view", "parent_view"].every((name) => number(body, name) === number(below, name));
  return named ? null : "the certificate does not finalize the last block";
}

function isFiller(block: Fields, below: Fields): boolean {
  return number(block, "height") === number(below, "height") + 1n &&
    number(block, "view") > number(below, "view") &&
    number(block, "epoch") === number(below, "epoch") &&
    isZero(block["next_validators"] as Uint8Array) &&
    sameCut(block["cut"] as Fields[], below["cut"] as Fields[]) &&
    number(block, "executed_height") === number(below, "executed_height") &&
    equal(block["executed_root"] as Uint8Array, below["executed_root"] as Uint8Array);
}

function sameCut(one: Fields[], other: Fields[]): boolean {
  return one.length === other.length && one.every((tip, at) =>
    equal(encodeRecord("Tip", tip), encodeRecord("Tip", other[at] ?? {})));
}

function isZero(hash: Uint8Array): boolean {
  return hash.every((byte) => byte === 0);
}

function number(fields: Fields, name: string): bigint {
  return fields[name] as bigint;
}
