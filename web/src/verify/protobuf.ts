/** As much of protobuf's wire format as receipts hold, read as the chain's own parser reads it. */
import { concat, fromUtf8, utf8 } from "./bytes";
import { type Field, message } from "./schema";

export type Scalar = bigint | string | Uint8Array;
export interface Message {
  [name: string]: Scalar | Message | Scalar[] | Message[] | undefined;
}

export class ProtobufError extends Error {}

const VARINT_BYTES_MAX = 10;
const DEPTH_MAX = 100;

class Reader {
  private at = 0;

  constructor(private readonly data: Uint8Array) {}

  get ended(): boolean {
    return this.at === this.data.length;
  }

  varint(): bigint {
    let value = 0n;
    for (let place = 0; place < VARINT_BYTES_MAX; place++) {
      const byte = this.data[this.at++];
      if (byte === undefined) throw new ProtobufError("ends within a number");
      value |= BigInt(byte & 127) << BigInt(7 * place);
      if (byte < 128) return BigInt.asUintN(64, value);
    }
    throw new ProtobufError("a number of more than ten bytes");
  }

  take(size: bigint): Uint8Array {
    if (size > BigInt(this.data.length - this.at)) throw new ProtobufError("ends within a field");
    this.at += Number(size);
    return this.data.slice(this.at - Number(size), this.at);
  }

  tag(): { number: number; type: number } {
    const tag = this.varint();
    const number = Number(tag >> 3n);
    if (tag > 0xffffffffn || number === 0) throw new ProtobufError(`${tag} is no field's tag`);
    return { number, type: Number(tag & 7n) };
  }

  /** Past a field that nobody knows; a group ends with its own number. */
  skip(number: number, type: number, depth = 0): void {
    if (depth > DEPTH_MAX) throw new ProtobufError("nested too deeply");
    if (type === 0) this.varint();
    else if (type === 1) this.take(8n);
    else if (type === 2) this.take(this.varint());
    else if (type === 5) this.take(4n);
    else if (type === 3) {
      for (;;) {
        const inner = this.tag();
        if (inner.type !== 4) {
          this.skip(inner.number, inner.type, depth + 1);
          continue;
        }
        if (inner.number !== number) throw new ProtobufError("a group ends with another's number");
        return;
      }
    } else throw new ProtobufError(`wire type ${type}`);
  }
}

/** The fields of a message, missing ones with their defaults. Raises ProtobufError. */
export function decodeMessage(name: string, data: Uint8Array): Message {
  const result: Message = {};
  merge(result, name, data);
  return withDefaults(result, name);
}

function merge(result: Message, name: string, data: Uint8Array): void {
  const reader = new Reader(data);
  const fields = message(name);
  while (!reader.ended) {
    const { number, type } = reader.tag();
    const field = fields.find((one) => one.number === number);
    const packed = field !== undefined && field.repeated && isVarint(field) && type === 2;
    if (field === undefined || (!packed && type !== (isVarint(field) ? 0 : 2))) {
      reader.skip(number, type);
    } else if (packed) {
      const run = new Reader(reader.take(reader.varint()));
      while (!run.ended) add(result, field, scalar(field, run.varint()));
    } else if (isVarint(field)) {
      add(result, field, scalar(field, reader.varint()));
    } else {
      addBytes(result, fields, field, reader.take(reader.varint()));
    }
  }
}

function isVarint(field: Field): boolean {
  const scalarKind = field.kind.scalar;
  return scalarKind !== "bytes" && scalarKind !== "string" && field.kind.message === undefined;
}

function scalar(field: Field, value: bigint): bigint {
  if (field.kind.enumeration !== undefined) return BigInt.asIntN(32, value);
  switch (field.kind.scalar) {
    case "uint32":
      return BigInt.asUintN(32, value);
    case "sint32": {
      const folded = BigInt.asUintN(32, value);
      return (folded >> 1n) ^ -(folded & 1n);
    }
    case "bool":
      return value === 0n ? 0n : 1n;
    default:
      return value;
  }
}

function addBytes(result: Message, fields: Field[], field: Field, data: Uint8Array): void {
  const inner = field.kind.message;
  if (field.oneof !== null) {
    for (const other of fields) {
      if (other.oneof === field.oneof && other !== field) delete result[other.name];
    }
  }
  if (inner === undefined) {
    const value = field.kind.scalar === "string" ? fromUtf8(data) : data;
    if (value === null) throw new ProtobufError(`${field.name} is not UTF-8`);
    add(result, field, value);
  } else if (field.repeated) {
    ((result[field.name] ??= []) as Message[]).push(decodeMessage(inner, data));
  } else {
    merge((result[field.name] ??= {}) as Message, inner, data);
  }
}

function add(result: Message, field: Field, value: Scalar): void {
  if (field.repeated) ((result[field.name] ??= []) as Scalar[]).push(value);
  else result[field.name] = value;
}

function withDefaults(result: Message, name: string): Message {
  for (const field of message(name)) {
    const inner = field.kind.message;
    if (field.repeated) result[field.name] ??= [];
    else if (inner !== undefined) {
      if (field.oneof === null || result[field.name] !== undefined) {
        result[field.name] = withDefaults((result[field.name] ?? {}) as Message, inner);
      }
    } else if (!field.presence) result[field.name] ??= defaultOf(field);
  }
  return result;
}

function defaultOf(field: Field): Scalar {
  if (field.kind.scalar === "bytes") return new Uint8Array();
  return field.kind.scalar === "string" ? "" : 0n;
}

/** The one way the chain writes a message: fields by number, defaults left out. */
export function encodeMessage(name: string, value: Message): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const field of [...message(name)].sort((one, other) => one.number - other.number)) {
    const held = value[field.name];
    const items = field.repeated ? (held as (Scalar | Message)[]) : [held as Scalar | Message];
    for (const item of items) {
      if (item === undefined || (!field.repeated && !field.presence && isDefault(item))) continue;
      if (typeof item === "bigint") {
        parts.push(varint(BigInt(field.number << 3)), varint(item));
        continue;
      }
      const inner = field.kind.message;
      const data = typeof item === "string" ? utf8(item)
        : inner !== undefined ? encodeMessage(inner, item as Message)
        : (item as Uint8Array);
      parts.push(varint(BigInt((field.number << 3) | 2)), varint(BigInt(data.length)), data);
    }
  }
  return concat(parts);
}

function isDefault(item: Scalar | Message): boolean {
  return item === 0n || item === "" || (item instanceof Uint8Array && item.length === 0);
}

function varint(value: bigint): Uint8Array {
  const bytes: number[] = [];
  let left = value;
  while (left > 127n) {
    bytes.push(Number(left & 127n) | 128);
    left >>= 7n;
  }
  bytes.push(Number(left));
  return Uint8Array.from(bytes);
}
