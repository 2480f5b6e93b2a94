/** How an account is written: bech32m (BIP-350) with the prefix `assay`, as `chain/addresses.py`. */
const PREFIX = "assay";
const KEY_BYTES = 32;
const CHARACTERS_MAX = 90;
const ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATORS = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3];
const BECH32M = 0x2bc830a3;
const CHECKSUM_CHARACTERS = 6;

function polymod(values: readonly number[]): number {
  let checksum = 1;
  for (const value of values) {
    const top = checksum >>> 25;
    checksum = ((checksum & 0x1ffffff) << 5) ^ value;
    GENERATORS.forEach((generator, bit) => {
      if ((top >>> bit) & 1) checksum ^= generator;
    });
  }
  return checksum >>> 0;
}

function expanded(prefix: string): number[] {
  const codes = [...prefix].map((character) => character.charCodeAt(0));
  return [...codes.map((code) => code >> 5), 0, ...codes.map((code) => code & 31)];
}

/** The same bits in groups of another width; null for padding that is not zero. */
function regroup(values: Iterable<number>, from: number, to: number, pad: boolean): number[] | null {
  const out: number[] = [];
  let bits = 0;
  let held = 0;
  for (const value of values) {
    held = ((held << from) | value) & 0xffff;
    bits += from;
    while (bits >= to) {
      bits -= to;
      out.push((held >> bits) & ((1 << to) - 1));
    }
  }
  const rest = held & ((1 << bits) - 1);
  if (pad && bits > 0) out.push((rest << (to - bits)) & ((1 << to) - 1));
  else if (!pad && (bits >= from || rest !== 0)) return null;
  return out;
}

export function encodeAddress(key: Uint8Array): string {
  const values = regroup(key, 8, 5, true) ?? [];
  const remainder = polymod([...expanded(PREFIX), ...values, 0, 0, 0, 0, 0, 0]) ^ BECH32M;
  for (let at = 0; at < CHECKSUM_CHARACTERS; at++) values.push((remainder >>> (5 * (5 - at))) & 31);
  return `${PREFIX}1${values.map((value) => ALPHABET.charAt(value)).join("")}`;
}

/** The public key behind `assay1…`; null for anything else. */
export function decodeAddress(text: string): Uint8Array | null {
  if (text.length > CHARACTERS_MAX || (text !== text.toLowerCase() && text !== text.toUpperCase())) {
    return null;
  }
  const lower = text.toLowerCase();
  const separator = lower.lastIndexOf("1");
  const values = [...lower.slice(separator + 1)].map((character) => ALPHABET.indexOf(character));
  if (lower.slice(0, separator) !== PREFIX || values.length < CHECKSUM_CHARACTERS) return null;
  if (values.includes(-1) || polymod([...expanded(PREFIX), ...values]) !== BECH32M) return null;
  const key = regroup(values.slice(0, -CHECKSUM_CHARACTERS), 5, 8, false);
  return key === null || key.length !== KEY_BYTES ? null : Uint8Array.from(key);
}
