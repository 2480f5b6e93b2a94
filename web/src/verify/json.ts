/**
 * JSON read as strictly as `chain/readable.py` reads it: integers exact, a name twice refused.
 * JSON.parse would round numbers of 64 bits, and keep the last of two fields without a word.
 */

/** A number that is no integer: it has no place in a receipt, wherever it stands. */
export class JsonFloat {
  constructor(readonly text: string) {}
}

export type JsonObject = Map<string, Json>;
export type Json = null | boolean | string | bigint | JsonFloat | Json[] | JsonObject;

/** The JSON is not what was asked for; the message begins with the place. */
export class ReadableError extends Error {}

const DEPTH_MAX = 64;
const DIGITS_MAX = 4300;
const NUMBER = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const SPACE = /[ \t\n\r]*/y;
const ESCAPES: Record<string, string> = {
  '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t",
};

class Reader {
  private at = 0;

  constructor(private readonly text: string) {}

  whole(): Json {
    const value = this.value(0);
    this.skip(SPACE);
    if (this.at !== this.text.length) throw this.error("something follows the value");
    return value;
  }

  private value(depth: number): Json {
    if (depth > DEPTH_MAX) throw new ReadableError("the file: nested too deeply");
    this.skip(SPACE);
    switch (this.text[this.at]) {
      case "{":
        return this.object(depth);
      case "[":
        return this.list(depth);
      case '"':
        return this.string();
      default:
        return this.plain();
    }
  }

  private object(depth: number): JsonObject {
    const result: JsonObject = new Map();
    this.at++;
    if (this.takes("}")) return result;
    do {
      this.skip(SPACE);
      if (this.text[this.at] !== '"') throw this.error("expected a name in quotes");
      const name = this.string();
      if (result.has(name)) throw new ReadableError(`${name}: named twice in one object`);
      if (!this.takes(":")) throw this.error("expected ':'");
      result.set(name, this.value(depth + 1));
    } while (this.takes(","));
    if (!this.takes("}")) throw this.error("expected ',' or '}'");
    return result;
  }

  private list(depth: number): Json[] {
    const result: Json[] = [];
    this.at++;
    if (this.takes("]")) return result;
    do result.push(this.value(depth + 1));
    while (this.takes(","));
    if (!this.takes("]")) throw this.error("expected ',' or ']'");
    return result;
  }

  private string(): string {
    const parts: string[] = [];
    this.at++;
    for (;;) {
      parts.push(this.skip(PLAIN));
      const next = this.text[this.at++];
      if (next === '"') return parts.join("");
      if (next !== "\\") throw this.error("a text without its end, or with a control character");
      parts.push(this.escaped());
    }
  }

  private escaped(): string {
    const letter = this.text[this.at++] ?? "";
    if (letter !== "u") {
      const character = ESCAPES[letter];
      if (character === undefined) throw this.error("an unknown escape");
      return character;
    }
    const digits = this.text.slice(this.at, this.at + 4);
    if (!/^[0-9a-fA-F]{4}$/.test(digits)) throw this.error("expected four hexadecimal digits");
    this.at += 4;
    return String.fromCharCode(parseInt(digits, 16));
  }

  private plain(): Json {
    for (const [word, value] of [["null", null], ["true", true], ["false", false]] as const) {
      if (this.text.startsWith(word, this.at)) {
        this.at += word.length;
        return value;
      }
    }
    NUMBER.lastIndex = this.at;
    const found = NUMBER.exec(this.text);
    if (found === null) throw this.error("expected a value");
    if (found[0].length > DIGITS_MAX) throw this.error("a number too long to be one");
    this.at += found[0].length;
    const whole = found[1] === undefined && found[2] === undefined;
    return whole ? BigInt(found[0]) : new JsonFloat(found[0]);
  }

  private takes(character: string): boolean {
    this.skip(SPACE);
    if (this.text[this.at] !== character) return false;
    this.at++;
    return true;
  }

  private skip(pattern: RegExp): string {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0] ?? "";
    this.at += found.length;
    return found;
  }

  private error(what: string): ReadableError {
    const before = this.text.slice(0, this.at).split("\n");
    const column = (before.at(-1) ?? "").length + 1;
    return new ReadableError(`line ${before.length}, column ${column}: ${what}`);
  }
}

/** A JSON object. Raises ReadableError for anything else. */
export function parseObject(text: string): JsonObject {
  const value = new Reader(text).whole();
  if (!(value instanceof Map)) throw new ReadableError("the file: expected one JSON object");
  return value;
}

/** The object at `place`, which must have exactly these names. */
export function takeFields(data: Json | undefined, names: readonly string[], place: string): JsonObject {
  if (!(data instanceof Map)) throw new ReadableError(`${place}: expected an object`);
  for (const name of data.keys()) {
    if (!names.includes(name)) throw new ReadableError(`${place}.${name}: unknown field`);
  }
  for (const name of names) {
    if (!data.has(name)) throw new ReadableError(`${place}.${name}: missing`);
  }
  return data;
}

export function takeText(data: Json | undefined, place: string): string {
  if (typeof data !== "string") throw new ReadableError(`${place}: expected text`);
  return data;
}

export function takeList(data: Json | undefined, place: string): Json[] {
  if (!Array.isArray(data)) throw new ReadableError(`${place}: expected a list`);
  return data;
}

export function takeInteger(data: Json | undefined, place: string, low: bigint, high: bigint): bigint {
  if (typeof data !== "bigint") throw new ReadableError(`${place}: expected an integer`);
  if (data < low || data > high) {
    throw new ReadableError(`${place}: ${data} is not in ${low} to ${high}`);
  }
  return data;
}

/** A value as JSON, short enough for a sentence. */
export function shown(value: Json): string {
  const text = write(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/** A value as JSON text. */
export function write(value: Json): string {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "bigint") return value.toString();
  if (value instanceof JsonFloat) return value.text;
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(write).join(", ")}]`;
  const fields = [...value].map(([name, item]) => `${JSON.stringify(name)}: ${write(item)}`);
  return `{${fields.join(", ")}}`;
}
