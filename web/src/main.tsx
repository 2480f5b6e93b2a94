/** The explorer: pages by the address's hash, so that a node serves one file for all of them. */
import { type JSX, render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { getJson, type Status } from "./api";
import { follow, useData, useLive } from "./live";
import { Heading } from "./parts";
import { BlockPage, Blocks } from "./pages/blocks";
import { JobPage, Jobs } from "./pages/jobs";
import { AccountPage, Models, Providers, ValidatorsPage } from "./pages/market";
import { Overview } from "./pages/overview";
import { TransactionPage, TransactionsPage } from "./pages/transactions";
import { Verify } from "./pages/verify";

const SECTIONS: [string, string][] = [
  ["", "Overview"],
  ["blocks", "Blocks"],
  ["transactions", "Transactions"],
  ["jobs", "Jobs"],
  ["models", "Models"],
  ["providers", "Providers"],
  ["validators", "Validators"],
  ["verify", "Verify"],
];
const PARENTS: Record<string, string> = { block: "blocks", transaction: "transactions", job: "jobs" };
const THEMES = ["system", "light", "dark"] as const;

interface Place {
  name: string;
  argument: string;
  before: number;
}

function placeOf(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [name = "", argument = ""] = path.split("/");
  const before = Number(new URLSearchParams(query).get("before") ?? "0");
  return { name, argument: decoded(argument), before: Number.isSafeInteger(before) && before > 0 ? before : 0 };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function Page({ place }: { place: Place }): JSX.Element {
  switch (place.name) {
    case "": return <Overview />;
    case "blocks": return <Blocks before={place.before} />;
    case "block": return <BlockPage height={place.argument} />;
    case "transactions": return <TransactionsPage before={place.before} />;
    case "transaction": return <TransactionPage id={place.argument} />;
    case "jobs": return <Jobs />;
    case "job": return <JobPage id={place.argument} />;
    case "models": return <Models />;
    case "providers": return <Providers />;
    case "validators": return <ValidatorsPage />;
    case "account": return <AccountPage id={place.argument} />;
    case "verify": return <Verify job={place.argument === "" ? null : place.argument} />;
    default: return <><Heading>Nothing here</Heading><p class="empty">This page has no part called “{place.name}”.</p></>;
  }
}

function App(): JSX.Element {
  const [place, move] = useState(placeOf(location.hash));
  const main = useRef<HTMLElement>(null);
  const moved = useRef(false);
  useEffect(() => {
    const listener = (): void => {
      moved.current = true;
      move(placeOf(location.hash));
    };
    addEventListener("hashchange", listener);
    return () => removeEventListener("hashchange", listener);
  }, []);
  const current = PARENTS[place.name] ?? place.name;
  const title = SECTIONS.find(([name]) => name === current)?.[1] ?? "Account";
  useEffect(() => {
    document.title = `${title} · Assay explorer`;
    if (!moved.current) return;
    window.scrollTo(0, 0);
    main.current?.querySelector("h1")?.focus();
  }, [place.name, place.argument, place.before]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current?.querySelector("h1")?.focus(); }}>to the content</a>
      <header>
        <a class="brand" href="#/">Assay</a>
        <nav aria-label="parts of the explorer">
          {SECTIONS.map(([name, text]) => (
            <a key={name} href={`#/${name}`} aria-current={name === current ? "page" : undefined}>{text}</a>
          ))}
        </nav>
        <Search />
      </header>
      <main ref={main} id="main"><Page key={`${place.name}/${place.argument}`} place={place} /></main>
      <Footer />
    </>
  );
}

/** A height, an address, or an id: of a job if there is one, else of a transaction. */
async function find(text: string): Promise<string | null> {
  const wanted = text.trim().toLowerCase();
  if (/^\d{1,18}$/.test(wanted)) return `#/block/${wanted}`;
  if (wanted.startsWith("assay1")) return `#/account/${wanted}`;
  if (!/^[0-9a-f]{64}$/.test(wanted)) return null;
  for (const [path, page] of [["jobs", "job"], ["transactions", "transaction"]] as const) {
    try {
      await getJson(`${path}/${wanted}`);
      return `#/${page}/${wanted}`;
    } catch {
      continue;
    }
  }
  return `#/account/${wanted}`;
}

function Search(): JSX.Element {
  const [text, change] = useState("");
  const [missed, miss] = useState(false);
  async function go(event: Event): Promise<void> {
    event.preventDefault();
    const found = await find(text);
    miss(found === null);
    if (found === null) return;
    change("");
    location.hash = found;
  }
  return (
    <form role="search" onSubmit={(event) => void go(event)}>
      <input type="search" value={text} onInput={(event) => { change(event.currentTarget.value); miss(false); }}
        placeholder="height, id or address" aria-label="find a block, transaction, job or account"
        aria-invalid={missed} spellcheck={false} />
      {missed && <p role="alert">give a height, 64 hexadecimal digits, or assay1…</p>}
    </form>
  );
}

function stored(): (typeof THEMES)[number] {
  try {
    return THEMES.find((theme) => theme === localStorage.getItem("theme")) ?? "system";
  } catch {
    return "system";
  }
}

function Footer(): JSX.Element {
  const live = useLive();
  const { data } = useData<Status>("status");
  const [theme, change] = useState(stored());
  useEffect(() => {
    if (theme === "system") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = theme;
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // a browser that keeps nothing asks again next time
    }
  }, [theme]);
  return (
    <footer>
      <span class={live ? "live" : "dim"}>{live ? "following the chain" : "not connected"}</span>
      {data !== null && <span><code>{data.chain_id}</code>, validator {data.validator}, version {data.version}</span>}
      <label>
        Colours{" "}
        <select value={theme} onChange={(event) => change(event.currentTarget.value as (typeof THEMES)[number])}>
          {THEMES.map((name) => <option key={name} value={name}>{name}</option>)}
        </select>
      </label>
    </footer>
  );
}

const root = document.getElementById("app");
if (root !== null) {
  root.textContent = "";
  render(<App />, root);
  follow();
}
