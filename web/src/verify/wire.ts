/**
 * Values laid out as `consensus/wire.py` lays them out: to bytes, from bytes, and from the JSON that
 * `chain/readable.py` shows. An enumeration's value is its name here.
 */
import { concat, fromHex, fromUtf8, littleEndian, toHex, utf8 } from "./bytes";
import { type Json, ReadableError, shown, takeFields, takeInteger, takeList, takeText } from "./json";
import { enumeration, type Layout, recordFields } from "./schema";

export type Value = bigint | boolean | string | Uint8Array | null | Value[] | Fields;
export interface Fields {
  [name: string]: Value;
}

/** The value is out of its bounds, or the bytes are not the one encoding of a value. */
export class WireError extends Error {}

const COUNT_BYTES = 4;

export function recordLayout(name: string): Layout {
  return { kind: "record", name };
}

/** Bytes of a record. Raises WireError for a size or count beyond its bound. */
export function encodeRecord(name: string, value: Fields): Uint8Array {
  const parts: Uint8Array[] = [];
  pack(recordLayout(name), value, parts);
  return concat(parts);
}

function sized(bytes: Uint8Array, limit: number, parts: Uint8Array[]): void {
  if (bytes.length > limit) throw new WireError(`${bytes.length} bytes, allowed are ${limit}`);
  parts.push(littleEndian(BigInt(bytes.length), COUNT_BYTES), bytes);
}

function pack(layout: Layout, value: Value, parts: Uint8Array[]): void {
  switch (layout.kind) {
    case "unsigned":
    case "signed":
      parts.push(littleEndian(value as bigint, layout.bytes));
      break;
    case "exactly":
      parts.push(value as Uint8Array);
      break;
    case "sized":
      sized(value as Uint8Array, layout.limit, parts);
      break;
    case "text":
      if (!isWellFormed(value as string)) throw new WireError("a text that is not Unicode");
      sized(utf8(value as string), layout.limit, parts);
      break;
    case "flag":
      parts.push(Uint8Array.of(value === true ? 1 : 0));
      break;
    case "optional":
      parts.push(Uint8Array.of(value === null ? 0 : 1));
      if (value !== null) pack(layout.of, value, parts);
      break;
    case "list": {
      const items = value as Value[];
      if (items.length > layout.limit) {
        throw new WireError(`${items.length} elements, allowed are ${layout.limit}`);
      }
      parts.push(littleEndian(BigInt(items.length), COUNT_BYTES));
      for (const item of items) pack(layout.of, item, parts);
      break;
    }
    case "enumeration":
      parts.push(Uint8Array.of(enumeration(layout.name)[value as string] ?? 0));
      break;
    case "record":
      for (const [name, field] of recordFields(layout.name)) {
        pack(field, (value as Fields)[name] ?? null, parts);
      }
  }
}

/** Half of a surrogate pair has no UTF-8. */
function isWellFormed(text: string): boolean {
  return fromUtf8(utf8(text)) === text;
}

/** The record whose one encoding `data` is. Raises WireError for anything else. */
export function decodeRecord(name: string, data: Uint8Array): Fields {
  const reader = new Reader(data);
  const value = reader.unpack(recordLayout(name)) as Fields;
  reader.end();
  return value;
}

class Reader {
  private at = 0;

  constructor(private readonly data: Uint8Array) {}

  end(): void {
    if (this.at !== this.data.length) throw new WireError(`${this.data.length - this.at} bytes left`);
  }

  private take(size: number): Uint8Array {
    if (size > this.data.length - this.at) throw new WireError(`ends at ${this.data.length}`);
    this.at += size;
    return this.data.slice(this.at - size, this.at);
  }

  private integer(width: number): bigint {
    return this.take(width).reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  }

  private count(limit: number): number {
    const count = Number(this.integer(COUNT_BYTES));
    if (count > limit) throw new WireError(`${count}, allowed are ${limit}`);
    return count;
  }

  private flag(): boolean {
    const byte = this.integer(1);
    if (byte > 1n) throw new WireError(`flag is ${byte}, not 0 or 1`);
    return byte === 1n;
  }

  unpack(layout: Layout): Value {
    switch (layout.kind) {
      case "unsigned":
        return this.integer(layout.bytes);
      case "signed":
        return BigInt.asIntN(8 * layout.bytes, this.integer(layout.bytes));
      case "exactly":
        return this.take(layout.bytes);
      case "sized":
        return this.take(this.count(layout.limit));
      case "text": {
        const text = fromUtf8(this.take(this.count(layout.limit)));
        if (text === null) throw new WireError("a text that is not UTF-8");
        return text;
      }
      case "flag":
        return this.flag();
      case "optional":
        return this.flag() ? this.unpack(layout.of) : null;
      case "list": {
        const items: Value[] = [];
        for (let left = this.count(layout.limit); left > 0; left--) items.push(this.unpack(layout.of));
        return items;
      }
      case "enumeration": {
        const byte = Number(this.integer(1));
        const found = Object.entries(enumeration(layout.name)).find(([, number]) => number === byte);
        if (found === undefined) throw new WireError(`${byte} is no ${layout.name}`);
        return found[0];
      }
      case "record": {
        const value: Fields = {};
        for (const [name, field] of recordFields(layout.name)) value[name] = this.unpack(field);
        return value;
      }
    }
  }
}

/** The value that JSON shows. Raises ReadableError; bounds of sizes are left to `encodeRecord`. */
export function parse(layout: Layout, data: Json | undefined, place: string): Value {
  switch (layout.kind) {
    case "unsigned":
      return takeInteger(data, place, 0n, (1n << BigInt(8 * layout.bytes)) - 1n);
    case "signed": {
      const half = 1n << BigInt(8 * layout.bytes - 1);
      return takeInteger(data, place, -half, half - 1n);
    }
    case "exactly":
      return parseBytes(data, place, layout.bytes);
    case "sized":
      return parseBytes(data, place);
    case "text":
      return takeText(data, place);
    case "flag":
      if (typeof data !== "boolean") throw new ReadableError(`${place}: expected true or false`);
      return data;
    case "optional":
      return data === null ? null : parse(layout.of, data, place);
    case "list":
      return takeList(data, place).map((item, at) => parse(layout.of, item, `${place}[${at}]`));
    case "enumeration": {
      const name = takeText(data, place);
      if (!Object.hasOwn(enumeration(layout.name), name)) {
        throw new ReadableError(`${place}: ${shown(name)} is no ${layout.name}`);
      }
      return name;
    }
    case "record": {
      const fields = recordFields(layout.name);
      const values = takeFields(data, fields.map(([name]) => name), place);
      const record: Fields = {};
      for (const [name, field] of fields) {
        record[name] = parse(field, values.get(name), `${place}.${name}`);
      }
      return record;
    }
  }
}

export function parseBytes(data: Json | undefined, place: string, size?: number): Uint8Array {
  const bytes = fromHex(takeText(data, place));
  if (bytes === null) {
    throw new ReadableError(`${place}: expected lower-case hexadecimal digits, two for a byte`);
  }
  if (size !== undefined && bytes.length !== size) {
    throw new ReadableError(`${place}: ${bytes.length} bytes, expected ${size}`);
  }
  return bytes;
}

/** JSON-ready form of a value: what `chain/readable.py` would show. */
export function render(value: Value): Json {
  if (value instanceof Uint8Array) return toHex(value);
  if (Array.isArray(value)) return value.map(render);
  if (typeof value !== "object" || value === null) return value;
  return new Map(Object.entries(value).map(([name, item]) => [name, render(item)]));
}
