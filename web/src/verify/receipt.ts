/** Receipt files, JSON and protobuf, read as `chain/receipt_files.py` reads them. */
import { equal, fromUtf8, toHex } from "./bytes";
import { type Json, type JsonObject, parseObject, ReadableError, shown, takeFields } from "./json";
import { decodeMessage, encodeMessage, type Message, ProtobufError } from "./protobuf";
import { protobufName, recordFields, schema } from "./schema";
import { decodeRecord, encodeRecord, type Fields, parse, parseBytes, render, WireError } from "./wire";

/** Why a receipt proves nothing: the same words as the chain's own program. */
export type Fault =
  | "UNREADABLE" | "WRONG_CHAIN" | "WRONG_JOB" | "REQUEST_ALTERED" | "RESULT_ALTERED"
  | "NOT_IN_BLOCK" | "EXECUTION_MISMATCH" | "HEADER_MISMATCH" | "UNKNOWN_EPOCH" | "NOT_FINAL"
  | "BAD_BOUNDARY"
  | "NO_QUORUM" | "BAD_SIGNATURE";

export class ReceiptInvalid extends Error {
  constructor(readonly reason: Fault, readonly detail: string) {
    super(`${reason}: ${detail}`);
  }
}

/** A record `Receipt` of the schema; nothing in it is believed before `verifyReceipt`. */
export type Receipt = Fields;

const BRACE = 0x7b;
const SPACES = [0x20, 0x09, 0x0d, 0x0a];
/** Where the fields of a receipt stand in its JSON form. */
const INCLUSION = ["path", "previous_root", "links"];
const FINALITY = ["header", "descendants", "certificate", "epoch_boundaries"];
/** Fields that hold records: protobuf carries these as bytes of their own. */
const RECORDS: Record<string, string> = {
  job_receipt: "JobReceipt", header: "Block", certificate: "Certificate",
};
const RECORD_LISTS: Record<string, string> = { links: "ExecutionLink", descendants: "Block" };

/** The receipt in a file of either form. Raises ReceiptInvalid(UNREADABLE). */
export function loadReceipt(data: Uint8Array): Receipt {
  try {
    if (data.length > schema.bounds.receipt_bytes_max) {
      throw new ReadableError(`${data.length} bytes, allowed are ${schema.bounds.receipt_bytes_max}`);
    }
    if (data.find((byte) => !SPACES.includes(byte)) !== BRACE) return fromProtobuf(data);
    const text = fromUtf8(data);
    if (text === null) throw new ReadableError("the text is not UTF-8");
    return fromJson(parseObject(text));
  } catch (error) {
    if (error instanceof ReadableError || error instanceof WireError || error instanceof ProtobufError) {
      throw new ReceiptInvalid("UNREADABLE", error.message);
    }
    throw error;
  }
}

/** What the request says. Raises ReceiptInvalid. */
export function parseRequest(data: Uint8Array): Message {
  return parseMessage("RequestInference", data, "the request");
}

/** What the result says. Raises ReceiptInvalid. */
export function parseResult(data: Uint8Array): Message {
  return parseMessage("InferenceResult", data, "the result");
}

function parseMessage(name: string, data: Uint8Array, place: string): Message {
  try {
    return decodeMessage(name, data);
  } catch (error) {
    if (!(error instanceof ProtobufError)) throw error;
    throw new ReceiptInvalid("UNREADABLE", `${place}: ${error.message}`);
  }
}

function fromJson(data: JsonObject): Receipt {
  const top = takeFields(data, [
    "version", "chain_id", "genesis", "job", "request", "result", "origin", "inclusion", "finality",
  ], "receipt");
  const origin = takeFields(top.get("origin"), ["transaction", "operation"], "origin");
  const inclusion = takeFields(top.get("inclusion"), INCLUSION, "inclusion");
  const finality = takeFields(top.get("finality"), FINALITY, "finality");
  const receipt: Receipt = {};
  for (const [name, layout] of recordFields("Receipt")) {
    if (name === "request") receipt[name] = signedBytes(top.get(name), name);
    else if (name === "result") {
      receipt[name] = top.get(name) === null ? null : signedBytes(top.get(name), name);
    } else {
      const [holder, key, place] = INCLUSION.includes(name) ? [inclusion, name, `inclusion.${name}`]
        : FINALITY.includes(name) ? [finality, name, `finality.${name}`]
        : origin.has(name) ? [origin, name, `origin.${name}`]
        : name === "job_receipt" ? [top, "job", "job"]
        : [top, name, name];
      receipt[name] = parse(layout, holder.get(key), place);
    }
  }
  encodeRecord("Receipt", receipt);
  const difference = firstDifference(toJson(receipt), data, "receipt");
  if (difference !== null) throw new ReadableError(difference);
  return receipt;
}

function signedBytes(data: Json | undefined, place: string): Uint8Array {
  if (!(data instanceof Map) || !data.has("bytes")) throw new ReadableError(`${place}.bytes: missing`);
  return parseBytes(data.get("bytes"), `${place}.bytes`);
}

/** The JSON form: what a file must show, to the letter. */
export function toJson(receipt: Receipt): JsonObject {
  const request = receipt["request"] as Uint8Array;
  const result = receipt["result"] as Uint8Array | null;
  const part = (names: readonly string[]): JsonObject =>
    new Map(names.map((name) => [name, render(receipt[name] ?? null)]));
  return new Map<string, Json>([
    ...part(["version", "chain_id", "genesis"]),
    ["job", render(receipt["job_receipt"] ?? null)],
    ["request", new Map<string, Json>([["bytes", toHex(request)], ...showRequest(parseRequest(request))])],
    ["result", result === null ? null
      : new Map<string, Json>([["bytes", toHex(result)], ...showResult(parseResult(result))])],
    ["origin", part(["transaction", "operation"])],
    ["inclusion", part(INCLUSION)],
    ["finality", part(FINALITY)],
  ]);
}

function showRequest(request: Message): [string, Json][] {
  return [
    ["model", show(request["model"])],
    ["input", showInput(request["input"] as Message)],
    ["sampling", showAll("Sampling", request["sampling"] as Message)],
    ["max_price", show(request["max_price"])],
    ["tier", protobufName("Tier", request["tier"] as bigint)],
    ["provider", show(request["provider"])],
    ["answer_within_ms", show(request["answer_within_ms"])],
    ["seed", show(request["seed"])],
  ];
}

function showInput(input: Message): JsonObject {
  if (input["text"] !== undefined) return new Map([["text", show(input["text"])]]);
  const chat = input["chat"] as Message | undefined;
  if (chat !== undefined) {
    const turns = (chat["messages"] as Message[]).map((turn): Json => new Map([
      ["role", protobufName("Role", turn["role"] as bigint)],
      ["content", show(turn["content"])],
    ]));
    return new Map([["chat", turns]]);
  }
  const ids = input["token_ids"] as Message | undefined;
  return new Map([["token_ids", show(ids?.["ids"] ?? [])]]);
}

function showAll(name: string, value: Message): JsonObject {
  return new Map((schema.messages[name] ?? []).map((field) => [field.name, show(value[field.name])]));
}

function showResult(result: Message): [string, Json][] {
  return [
    ["text", show(result["text"])],
    ["token_ids", show(result["token_ids"])],
    ["logprobs", show(result["logprobs"])],
    ["finish_reason", protobufName("FinishReason", result["finish_reason"] as bigint)],
    ["input_tokens", show(result["input_tokens"])],
    ["engine_profile", show(result["engine_profile"])],
  ];
}

function show(value: Message[string]): Json {
  if (value instanceof Uint8Array) return toHex(value);
  if (Array.isArray(value)) return value.map((item) => show(item));
  return value as bigint | string;
}

/** Where a file shows something else than its own evidence says, in words; null if nowhere. */
function firstDifference(right: Json, seen: Json, place: string): string | null {
  if (right instanceof Map && seen instanceof Map) {
    for (const name of seen.keys()) {
      if (!right.has(name)) return `${place}.${name}: unknown field`;
    }
    for (const [name, value] of right) {
      const other = seen.get(name);
      if (other === undefined) return `${place}.${name}: missing`;
      const found = firstDifference(value, other, `${place}.${name}`);
      if (found !== null) return found;
    }
    return null;
  }
  if (Array.isArray(right) && Array.isArray(seen)) {
    if (right.length !== seen.length) {
      return `${place}: ${seen.length} elements, the evidence has ${right.length}`;
    }
    for (const [at, value] of right.entries()) {
      const found = firstDifference(value, seen[at] ?? null, `${place}[${at}]`);
      if (found !== null) return found;
    }
    return null;
  }
  if (right === seen) return null;
  return `${place}: shows ${shown(seen)}, the evidence says ${shown(right)}`;
}

function fromProtobuf(data: Uint8Array): Receipt {
  const message = decodeMessage("Receipt", data);
  const receipt: Receipt = {};
  for (const [name] of recordFields("Receipt")) receipt[name] = fromMessage(name, message[name]);
  encodeRecord("Receipt", receipt);
  checkSizes(receipt);
  if (!equal(encodeMessage("Receipt", toMessage(receipt)), data)) {
    throw new ReadableError("not the canonical protobuf encoding of a receipt");
  }
  return receipt;
}

function fromMessage(name: string, value: Message[string]): Fields[string] {
  const record = RECORDS[name];
  const listed = RECORD_LISTS[name];
  if (value === undefined) return null;
  if (record !== undefined) return decodeRecord(record, value as Uint8Array);
  if (listed !== undefined) return (value as Uint8Array[]).map((item) => decodeRecord(listed, item));
  if (name === "path") {
    return (value as Message[]).map((step) => ({
      sibling: step["sibling"] as Uint8Array,
      sibling_is_left: step["sibling_is_left"] === 1n,
    }));
  }
  return value as bigint | string | Uint8Array | Uint8Array[];
}

/** Protobuf knows no sizes and no narrow numbers: what decoding a record would have refused. */
function checkSizes(receipt: Receipt): void {
  const hashes = [receipt["genesis"], receipt["transaction"], receipt["previous_root"],
    ...(receipt["path"] as Fields[]).map((step) => step["sibling"])];
  if (hashes.some((hash) => (hash as Uint8Array).length !== 32)) {
    throw new ReadableError("a hash that has not 32 bytes");
  }
  if ((receipt["version"] as bigint) > 255n) throw new ReadableError("version: at most 255");
}

function toMessage(receipt: Receipt): Message {
  const message: Message = {};
  for (const [name] of recordFields("Receipt")) {
    const value = receipt[name] as never;
    const record = RECORDS[name];
    const listed = RECORD_LISTS[name];
    if (value === null) continue;
    if (record !== undefined) message[name] = encodeRecord(record, value);
    else if (listed !== undefined) {
      message[name] = (value as Fields[]).map((item) => encodeRecord(listed, item));
    } else if (name === "path") {
      message[name] = (value as Fields[]).map((step) => ({
        sibling: step["sibling"] as Uint8Array,
        sibling_is_left: step["sibling_is_left"] === true ? 1n : 0n,
      }));
    } else message[name] = value;
  }
  return message;
}
