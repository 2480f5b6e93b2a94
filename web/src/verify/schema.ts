/** What `chain/explorer/schema.py` says of the chain's formats. */
import data from "../schema.json";

export type Layout =
  | { kind: "unsigned" | "signed" | "exactly"; bytes: number }
  | { kind: "sized" | "text"; limit: number }
  | { kind: "list"; limit: number; of: Layout }
  | { kind: "optional"; of: Layout }
  | { kind: "flag" }
  | { kind: "enumeration" | "record"; name: string };

export interface Field {
  number: number;
  name: string;
  kind: { scalar?: string; message?: string; enumeration?: string };
  repeated: boolean;
  presence: boolean;
  oneof: string | null;
}

export interface Schema {
  records: Record<string, Record<string, Layout>>;
  enumerations: Record<string, Record<string, number>>;
  messages: Record<string, Field[]>;
  protobuf_enumerations: Record<string, Record<string, number>>;
  faults: string[];
  bounds: {
    receipt_version: number;
    receipt_bytes_max: number;
    genesis_version: number;
    genesis_bytes_max: number;
    supply_max: string;
    stake_max: string;
  };
}

export const schema = data as unknown as Schema;

export function recordFields(name: string): [string, Layout][] {
  const record = schema.records[name];
  if (record === undefined) throw new Error(`the schema has no record ${name}`);
  return Object.entries(record);
}

export function enumeration(name: string): Record<string, number> {
  const values = schema.enumerations[name];
  if (values === undefined) throw new Error(`the schema has no enumeration ${name}`);
  return values;
}

export function message(name: string): Field[] {
  const fields = schema.messages[name];
  if (fields === undefined) throw new Error(`the schema has no message ${name}`);
  return fields;
}

/** The schema's name, or the number of a value that is younger than this page. */
export function protobufName(kind: string, value: bigint): string {
  const values = schema.protobuf_enumerations[kind] ?? {};
  const found = Object.entries(values).find(([, one]) => BigInt(one) === value);
  return found === undefined ? value.toString() : found[0];
}
