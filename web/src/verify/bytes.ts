/** Bytes, and the one hash of the chain: the same as `ext/hashing` and `ext/merkle`. */
import { sha256 } from "@noble/hashes/sha2.js";

const DIGITS = "0123456789abcdef";
const encoder = new TextEncoder();

export function toHex(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += DIGITS.charAt(byte >> 4) + DIGITS.charAt(byte & 15);
  return text;
}

/** Bytes of lower-case hexadecimal digits, two for a byte; null for anything else. */
export function fromHex(text: string): Uint8Array | null {
  if (text.length % 2 !== 0 || !/^[0-9a-f]*$/.test(text)) return null;
  const bytes = new Uint8Array(text.length / 2);
  for (let at = 0; at < bytes.length; at++) bytes[at] = parseInt(text.slice(2 * at, 2 * at + 2), 16);
  return bytes;
}

export function equal(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}

/** Text of UTF-8 bytes; null if they are not. */
export function fromUtf8(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

export function littleEndian(value: bigint, width: number): Uint8Array {
  const bytes = new Uint8Array(width);
  let left = BigInt.asUintN(8 * width, value);
  for (let at = 0; at < width; at++) {
    bytes[at] = Number(left & 255n);
    left >>= 8n;
  }
  return bytes;
}

/** SHA-256( u8 len(tag) | tag | for each field: u32-LE length | field ). */
export function taggedHash(tag: string, ...fields: Uint8Array[]): Uint8Array {
  const name = utf8(tag);
  const parts: Uint8Array[] = [Uint8Array.of(name.length), name];
  for (const field of fields) parts.push(littleEndian(BigInt(field.length), 4), field);
  return sha256(concat(parts));
}

/** RFC 6962: leaves and inner nodes differ in their first byte. */
export function leafHash(data: Uint8Array): Uint8Array {
  return sha256(concat([Uint8Array.of(0), data]));
}

export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  return sha256(concat([Uint8Array.of(1), left, right]));
}
