/**
 * What a receipt proves to somebody who trusts a genesis: the checks of `chain/receipts.py`, in its
 * order. Each step hashes to the next, so nothing in between can be changed:
 *
 *     request, result --digest--> job receipt --path--> receipts root --links--> execution root
 *     --named by--> header --parents--> certified block --signed by--> two thirds of the stake
 *     of the epoch's validators --named by--> the boundaries before, back to genesis
 */
import { concat, equal, leafHash, littleEndian, nodeHash, taggedHash, toHex, utf8 } from "./bytes";
import {
  blockDigest, BoundaryInvalid, CertificateInvalid, checkSigners, decodeBoundary, follow, genesisSet,
  type ValidatorSet,
} from "./epochs";
import type { Genesis } from "./genesis";
import type { Message } from "./protobuf";
import { type Fault, parseRequest, parseResult, type Receipt, ReceiptInvalid } from "./receipt";
import { schema } from "./schema";
import { encodeRecord, type Fields } from "./wire";

export const CHECKS = ["origin", "messages", "execution", "headers", "epochs", "certificate"] as const;
export type Check = (typeof CHECKS)[number];

export interface Verified {
  receipt: Receipt;
  request: Message;
  result: Message | null;
  signers: number[];
  signedStake: bigint;
  totalStake: bigint;
}

const JOB_LEAF = utf8("J");

/** Raises ReceiptInvalid. `passed` hears of each check that holds, in order. */
export function verifyReceipt(
  receipt: Receipt,
  genesis: Genesis,
  passed: (check: Check) => void = () => undefined,
): Verified {
  checkOrigin(receipt, genesis);
  passed("origin");
  const { request, result } = checkMessages(receipt);
  passed("messages");
  checkExecution(receipt);
  passed("execution");
  const certified = checkHeaders(receipt);
  passed("headers");
  const certificate = receipt["certificate"] as Fields;
  const validators = followBoundaries(receipt, genesis);
  passed("epochs");
  const signedStake = checkCertificate(certificate, certified, validators, genesis.chainId);
  passed("certificate");
  const signers = (certificate["signers"] as bigint[]).map(Number);
  return { receipt, request, result, signers, signedStake, totalStake: validators.stakeTotal };
}

function refuse(reason: Fault, detail: string): never {
  throw new ReceiptInvalid(reason, detail);
}

function bytes(fields: Fields, name: string): Uint8Array {
  return fields[name] as Uint8Array;
}

function number(fields: Fields, name: string): bigint {
  return fields[name] as bigint;
}

function ruling(receipt: Receipt): Fields {
  return receipt["job_receipt"] as Fields;
}

function checkOrigin(receipt: Receipt, genesis: Genesis): void {
  const version = number(receipt, "version");
  if (version !== BigInt(schema.bounds.receipt_version)) {
    refuse("UNREADABLE", `version ${version}, this page reads ${schema.bounds.receipt_version}`);
  }
  const chain = receipt["chain_id"] as string;
  if (chain !== genesis.chainId || !equal(bytes(receipt, "genesis"), genesis.digest)) {
    refuse("WRONG_CHAIN",
      `the receipt is of chain ${chain} (genesis ${toHex(bytes(receipt, "genesis"))}), the trusted ` +
      `genesis is of ${genesis.chainId} (${toHex(genesis.digest)})`);
  }
  const operation = littleEndian(number(receipt, "operation"), 4);
  const job = taggedHash("job", bytes(receipt, "transaction"), operation);
  if (!equal(job, bytes(ruling(receipt), "job"))) {
    refuse("WRONG_JOB",
      `operation ${number(receipt, "operation")} of the transaction makes job ${toHex(job)}, the job ` +
      `receipt is of ${toHex(bytes(ruling(receipt), "job"))}`);
  }
}

function checkMessages(receipt: Receipt): { request: Message; result: Message | null } {
  const ruled = ruling(receipt);
  const asked = taggedHash("request", bytes(receipt, "request"));
  if (!equal(asked, bytes(ruled, "request_digest"))) {
    refuse("REQUEST_ALTERED",
      `the request hashes to ${toHex(asked)}, the chain has ${toHex(bytes(ruled, "request_digest"))}`);
  }
  const result = receipt["result"] as Uint8Array | null;
  const found = result === null ? null : taggedHash("result", result);
  const expected = ruled["result_digest"] as Uint8Array | null;
  if (found === null || expected === null ? found !== expected : !equal(found, expected)) {
    refuse("RESULT_ALTERED",
      `the result hashes to ${named(found)}, the chain has ${named(expected)}`);
  }
  return {
    request: parseRequest(bytes(receipt, "request")),
    result: result === null ? null : parseResult(result),
  };
}

function named(digest: Uint8Array | null): string {
  return digest === null ? "none" : toHex(digest);
}

function checkExecution(receipt: Receipt): void {
  const links = receipt["links"] as Fields[];
  const first = links[0];
  const last = links.at(-1);
  const height = number(ruling(receipt), "height");
  if (first === undefined || last === undefined || number(first, "height") !== height) {
    refuse("EXECUTION_MISMATCH", `the links must begin at the job's height, ${height}`);
  }
  let root = leafHash(concat([JOB_LEAF, encodeRecord("JobReceipt", ruling(receipt))]));
  for (const step of receipt["path"] as Fields[]) {
    const sibling = bytes(step, "sibling");
    root = step["sibling_is_left"] === true ? nodeHash(sibling, root) : nodeHash(root, sibling);
  }
  if (!equal(root, bytes(first, "receipts_root"))) {
    refuse("NOT_IN_BLOCK",
      `job receipt and path lead to ${toHex(root)}, the receipts root of block ${height} is ` +
      toHex(bytes(first, "receipts_root")));
  }
  let executed = bytes(receipt, "previous_root");
  for (const [at, link] of links.entries()) {
    if (number(link, "height") !== height + BigInt(at)) {
      refuse("EXECUTION_MISMATCH", `link ${at} is of height ${number(link, "height")}`);
    }
    executed = taggedHash("execution", executed, encodeRecord("ExecutionLink", link));
  }
  const header = receipt["header"] as Fields;
  const claimed = number(header, "executed_height");
  if (number(last, "height") !== claimed || !equal(executed, bytes(header, "executed_root"))) {
    refuse("EXECUTION_MISMATCH",
      `the links lead to ${toHex(executed)} at height ${number(last, "height")}, the header names ` +
      `${toHex(bytes(header, "executed_root"))} at ${claimed}`);
  }
}

/** The certified block, once every header leads to it. */
function checkHeaders(receipt: Receipt): Fields {
  let block = receipt["header"] as Fields;
  for (const child of receipt["descendants"] as Fields[]) {
    const digest = blockDigest(block);
    const follows = number(child, "height") === number(block, "height") + 1n;
    if (!follows || !equal(bytes(child, "parent"), digest)) {
      refuse("HEADER_MISMATCH",
        `block ${number(child, "height")} is no child of block ${number(block, "height")}, ` +
        toHex(digest));
    }
    block = child;
  }
  return block;
}

/** The validators of the certificate's epoch, on the word of those before them. */
function followBoundaries(receipt: Receipt, genesis: Genesis): ValidatorSet {
  const epoch = number((receipt["certificate"] as Fields)["body"] as Fields, "epoch");
  const boundaries = receipt["epoch_boundaries"] as Uint8Array[];
  if (epoch !== BigInt(boundaries.length)) {
    refuse("UNKNOWN_EPOCH",
      `the certificate is of epoch ${epoch} and comes with ${boundaries.length} boundaries; this page ` +
      "trusts genesis alone, assay receipt verify can trust a later set");
  }
  try {
    let trusted = genesisSet(genesis);
    for (const data of boundaries) trusted = follow(decodeBoundary(data), trusted, genesis.chainId);
    return trusted;
  } catch (error) {
    if (error instanceof BoundaryInvalid) refuse("BAD_BOUNDARY", error.message);
    throw error;
  }
}

/** Stake behind the certificate, once it makes `block` final. */
function checkCertificate(
  certificate: Fields, block: Fields, trusted: ValidatorSet, chainId: string,
): bigint {
  const body = certificate["body"] as Fields;
  if (body["kind"] !== "FINALIZE") {
    refuse("NOT_FINAL", `the certificate's kind is ${String(body["kind"])}, not FINALIZE`);
  }
  if (number(body, "epoch") !== trusted.epoch || number(block, "epoch") !== trusted.epoch) {
    refuse("UNKNOWN_EPOCH",
      `certificate of epoch ${number(body, "epoch")}, block of ${number(block, "epoch")}, ` +
      `the validators are of epoch ${trusted.epoch}`);
  }
  const digest = blockDigest(block);
  const sameViews = number(body, "view") === number(block, "view") &&
    number(body, "parent_view") === number(block, "parent_view");
  if (!sameViews || !equal(bytes(body, "digest"), digest)) {
    refuse("HEADER_MISMATCH",
      `the certificate is for block ${toHex(bytes(body, "digest"))} of view ${number(body, "view")}, ` +
      `the headers lead to ${toHex(digest)} of view ${number(block, "view")}`);
  }
  try {
    return checkSigners(certificate, trusted, chainId);
  } catch (error) {
    if (error instanceof CertificateInvalid) refuse(error.reason, error.message);
    throw error;
  }
}
