/** Small things that every page is made of. */
import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import type { ApiError } from "./api";
import { dateTime, shortId, since, words } from "./format";

const GOOD = new Set(["VERIFIED", "PASS", "accepted", "connected", "chosen", "WON"]);
const BAD = new Set(["REJECTED", "FAIL", "refused", "not connected", "convicted", "ejected", "LOST"]);
const NEUTRAL = new Set(["REFUNDED", "ABSTAIN"]);

export function Badge({ name }: { name: string }): JSX.Element {
  const tone = GOOD.has(name) ? "good" : BAD.has(name) ? "bad" : NEUTRAL.has(name) ? "dim" : "wait";
  return <span class={`badge ${tone}`}>{words(name)}</span>;
}

/** An id, short to look at and whole to copy, perhaps with a page of its own. */
export function Id({ value, href, whole }: { value: string | null; href?: string; whole?: boolean }): JSX.Element {
  const [copied, setCopied] = useState(false);
  if (value === null || value === "") return <span class="dim">none</span>;
  const text = <code title={value}>{whole === true ? value : shortId(value)}</code>;
  const copy = (): void => {
    navigator.clipboard?.writeText(value).then(() => {
      setCopied(true);
      setTimeout(() => setCopied(false), 1500);
    }, () => undefined);
  };
  return (
    <span class={whole === true ? "id whole" : "id"}>
      {href === undefined ? text : <a href={href}>{text}</a>}
      {navigator.clipboard && (
        <button type="button" class="copy" onClick={copy} aria-label={copied ? "copied" : `copy ${shortId(value)}`}>
          <svg viewBox="0 0 16 16" aria-hidden="true">
            {copied ? <path d="M3 8.5 6.5 12 13 4.5" /> : <path d="M5.5 5.5h7v8h-7zM3.5 10.5v-8h7" />}
          </svg>
        </button>
      )}
    </span>
  );
}

export const BlockLink = ({ height }: { height: number | string }): JSX.Element => (
  <a href={`#/block/${height}`}>{Number(height).toLocaleString("en")}</a>
);
export const JobLink = ({ id }: { id: string }): JSX.Element => <Id value={id} href={`#/job/${id}`} />;
export const TransactionLink = ({ id }: { id: string }): JSX.Element => (
  <Id value={id} href={`#/transaction/${id}`} />
);
export const AccountLink = ({ id }: { id: string | null }): JSX.Element =>
  id === null ? <span class="dim">none</span> : <Id value={id} href={`#/account/${id}`} />;

export function Time({ ms }: { ms: number | null | undefined }): JSX.Element {
  if (ms === null || ms === undefined || ms === 0) return <span class="dim">–</span>;
  const ago = Date.now() - ms;
  return <time dateTime={new Date(ms).toISOString()} title={dateTime(ms)}>{since(ago) ?? dateTime(ms)}</time>;
}

export function Tile({ label, children, note }: { label: string; children: ComponentChildren; note?: ComponentChildren }): JSX.Element {
  return (
    <div class="tile">
      <dt>{label}</dt>
      <dd>{children}</dd>
      {note !== undefined && <dd class="note">{note}</dd>}
    </div>
  );
}

export function Tiles({ children }: { children: ComponentChildren }): JSX.Element {
  return <dl class="tiles">{children}</dl>;
}

export function Facts({ rows }: { rows: [string, ComponentChildren][] }): JSX.Element {
  return (
    <dl class="facts">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export interface Column<T> {
  title: string;
  cell: (row: T) => ComponentChildren;
  numeric?: boolean;
}

/** A table that becomes a list of cards on a small screen. */
export function Table<T>({ caption, columns, rows, rowKey, empty }: {
  caption: string;
  columns: Column<T>[];
  rows: readonly T[];
  rowKey: (row: T) => string | number;
  empty: string;
}): JSX.Element {
  if (rows.length === 0) return <p class="empty">{empty}</p>;
  return (
    <table>
      <caption>{caption}</caption>
      <thead>
        <tr>
          {columns.map((column) => (
            <th key={column.title} scope="col" class={column.numeric ? "number" : ""}>{column.title}</th>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={rowKey(row)}>
            {columns.map((column) => (
              <td key={column.title} data-title={column.title} class={column.numeric ? "number" : ""}>
                {column.cell(row)}
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function Trouble({ error }: { error: ApiError | null }): JSX.Element | null {
  if (error === null) return null;
  return (
    <p class="trouble" role="alert">
      <strong>{words(error.reason)}</strong> {error.message}
    </p>
  );
}

/** What is shown until the first answer has come. */
export function Waiting({ error }: { error: ApiError | null }): JSX.Element {
  return error === null ? <p class="empty" role="status">asking the node…</p> : <Trouble error={error} />;
}

export function Heading({ children, aside }: { children: ComponentChildren; aside?: ComponentChildren }): JSX.Element {
  return (
    <div class="heading">
      <h1 tabIndex={-1}>{children}</h1>
      {aside !== undefined && <div class="aside">{aside}</div>}
    </div>
  );
}

export function Section({ title, children }: { title: string; children: ComponentChildren }): JSX.Element {
  return (
    <section aria-label={title}>
      <h2>{title}</h2>
      {children}
    </section>
  );
}
