/** The genesis that a receipt is checked against: read from the chain's genesis file. */
import { decodeAddress } from "./address";
import { taggedHash, toHex } from "./bytes";
import { type Json, parseObject, ReadableError, takeFields, takeInteger, takeList, takeText } from "./json";
import { type Layout, recordFields, schema } from "./schema";
import { encodeRecord, type Fields, parse, type Value, WireError } from "./wire";

export interface TrustedValidator {
  index: number;
  signingKey: Uint8Array;
  account: Uint8Array;
  stake: bigint;
}

export interface Genesis {
  name: string;
  chainId: string;
  digest: Uint8Array;
  validators: TrustedValidator[];
  stakeTotal: bigint;
  /** The least stake that is more than two thirds of the total. */
  quorumStake: bigint;
}

/** The file is no genesis that a receipt can be checked against; the message says why. */
export class GenesisError extends Error {}

/**
 * Read a genesis file. Its digest covers every byte of its one encoding, so who knows the digest knows
 * the genesis; the validators' TLS certificates, which receipts do not rest on, are not looked into.
 */
export function readGenesis(text: string): Genesis {
  if (text.length > schema.bounds.genesis_bytes_max) {
    throw new GenesisError(`${text.length} characters are too many for a genesis file`);
  }
  try {
    return fromFields(parseGenesis(parseObject(text)));
  } catch (error) {
    if (error instanceof ReadableError || error instanceof WireError) {
      throw new GenesisError(error.message);
    }
    throw error;
  }
}

function parseGenesis(data: Json): Fields {
  const fields = recordFields("Genesis");
  const values = takeFields(data, fields.map(([name]) => name), "genesis");
  const result: Fields = {};
  for (const [name, layout] of fields) {
    const place = `genesis.${name}`;
    const value = values.get(name);
    if (name === "treasury") result[name] = account(value, place);
    else if (name === "accounts") result[name] = accounts(value, place);
    else if (name === "validators") {
      result[name] = takeList(value, place).map((item, at) => validator(item, `${place}[${at}]`));
    } else result[name] = parse(layout, value, place);
  }
  return result;
}

function account(data: Json | undefined, place: string): Uint8Array {
  const key = decodeAddress(takeText(data, place));
  if (key === null) throw new ReadableError(`${place}: no account; expected assay1…`);
  return key;
}

function accounts(data: Json | undefined, place: string): Value[] {
  if (!(data instanceof Map)) throw new ReadableError(`${place}: expected an object`);
  const supplyMax = BigInt(schema.bounds.supply_max);
  const rows = [...data].map(([address, balance]) => ({
    key: account(address, place),
    balance: takeInteger(balance, `${place}.${address}`, 0n, supplyMax),
  }));
  const order = rows.map((row) => ({ row, hex: toHex(row.key) }));
  order.sort((one, other) => (one.hex < other.hex ? -1 : one.hex > other.hex ? 1 : 0));
  for (let at = 1; at < order.length; at++) {
    if (order[at]?.hex === order[at - 1]?.hex) throw new ReadableError(`${place}: an account twice`);
  }
  return order.map((item) => item.row);
}

function validator(data: Json, place: string): Fields {
  const fields = recordFields("GenesisValidator");
  const values = takeFields(data, fields.map(([name]) => name), place);
  const read = (name: string, layout: Layout): Value => {
    const value = values.get(name);
    if (name === "account") return account(value, `${place}.${name}`);
    if (name === "certificate") return certificate(takeText(value, `${place}.${name}`), place);
    return parse(layout, value, `${place}.${name}`);
  };
  return Object.fromEntries(fields.map(([name, layout]) => [name, read(name, layout)]));
}

function certificate(pem: string, place: string): Uint8Array {
  const found = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----/.exec(pem);
  try {
    return Uint8Array.from(atob((found?.[1] ?? "!").replace(/\s/g, "")), (one) => one.charCodeAt(0));
  } catch {
    throw new ReadableError(`${place}.certificate: no PEM certificate`);
  }
}

function fromFields(fields: Fields): Genesis {
  const version = fields["version"] as bigint;
  if (version !== BigInt(schema.bounds.genesis_version)) {
    throw new GenesisError(`version ${version}, this page reads ${schema.bounds.genesis_version}`);
  }
  const name = fields["name"] as string;
  if (!/^[a-z0-9-]{1,32}$/.test(name)) throw new GenesisError("name: 1 to 32 of a-z, 0-9 and '-'");
  const members = (fields["validators"] as Fields[]).map((member) => ({
    index: Number(member["index"]),
    signingKey: member["signing_key"] as Uint8Array,
    account: member["account"] as Uint8Array,
    stake: member["stake"] as bigint,
  }));
  const stakeTotal = members.reduce((sum, member) => sum + member.stake, 0n);
  if (members.length === 0 || members.some((one, at) => one.index !== at || one.stake < 1n)) {
    throw new GenesisError("validators must be listed in order from 0, each with stake");
  }
  for (const key of ["signingKey", "account"] as const) {
    if (new Set(members.map((member) => toHex(member[key]))).size !== members.length) {
      throw new GenesisError(`two validators share one ${key}: each needs its own`);
    }
  }
  if (stakeTotal > BigInt(schema.bounds.stake_max)) {
    throw new GenesisError(`voting stake sums to ${stakeTotal}, allowed are ${schema.bounds.stake_max}`);
  }
  const digest = taggedHash("genesis", encodeRecord("Genesis", fields));
  return {
    name,
    chainId: `${name}-${toHex(digest).slice(0, 8)}`,
    digest,
    validators: members,
    stakeTotal,
    quorumStake: (stakeTotal * 2n) / 3n + 1n,
  };
}
