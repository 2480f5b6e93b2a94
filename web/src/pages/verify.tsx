import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, getText } from "../api";
import { amount, count, shortId } from "../format";
import { AccountLink, Badge, Facts, Heading, Id, Section, Table } from "../parts";
import { encodeAddress } from "../verify/address";
import { toHex, utf8 } from "../verify/bytes";
import { type Check, CHECKS, type Verified, verifyReceipt } from "../verify/checks";
import { type Genesis, GenesisError, readGenesis } from "../verify/genesis";
import type { Message } from "../verify/protobuf";
import { loadReceipt, ReceiptInvalid } from "../verify/receipt";
import { protobufName, schema } from "../verify/schema";
import type { Fields } from "../verify/wire";

const CHECK_WORDS: Record<Check, [string, string]> = {
  origin: ["Chain and job", "the genesis is the trusted one, and the job’s id follows from its transaction"],
  messages: ["Request and result", "their bytes hash to what the chain ruled on"],
  execution: ["Place in the chain", "Merkle path, receipts root and execution roots lead to the header"],
  headers: ["Headers", "each block names its parent’s digest, up to the certified one"],
  epochs: ["Validators", "of its epoch, each set named and signed for by the one before, back to genesis"],
  certificate: ["Certificate", "Ed25519 signatures of more than two thirds of the stake make it final"],
};

interface Trust {
  given: boolean;
  genesis: Genesis | null;
  error: string | null;
}

interface Dropped {
  name: string;
  data: Uint8Array;
}

type Outcome =
  | { ok: true; verified: Verified; passed: Check[] }
  | { ok: false; reason: string; detail: string; passed: Check[] };

function judge(data: Uint8Array, genesis: Genesis): Outcome {
  const passed: Check[] = [];
  try {
    const verified = verifyReceipt(loadReceipt(data), genesis, (check) => passed.push(check));
    return { ok: true, verified, passed };
  } catch (error) {
    if (!(error instanceof ReceiptInvalid)) throw error;
    return { ok: false, reason: error.reason, detail: error.detail, passed };
  }
}

function trustOf(text: string, given: boolean): Trust {
  try {
    return { given, genesis: readGenesis(text), error: null };
  } catch (error) {
    if (!(error instanceof GenesisError)) throw error;
    return { given, genesis: null, error: error.message };
  }
}

export function Verify({ job }: { job: string | null }): JSX.Element {
  const [trust, setTrust] = useState<Trust>({ given: false, genesis: null, error: null });
  const [dropped, setDropped] = useState<Dropped | null>(null);
  const [trouble, setTrouble] = useState<string | null>(null);

  function serve(): void {
    getText("genesis").then(
      (text) => setTrust(trustOf(text, false)),
      (error: unknown) => setTrust({ given: false, genesis: null, error: String((error as Error).message) }),
    );
  }
  useEffect(serve, []);
  useEffect(() => {
    setDropped(null);
    setTrouble(null);
    if (job === null) return;
    getText(`jobs/${encodeURIComponent(job)}/receipt`).then(
      (text) => setDropped({ name: `the receipt of job ${shortId(job)}, from this node`, data: utf8(text) }),
      (error: unknown) => setTrouble(error instanceof ApiError ? `${error.reason}: ${error.message}` : String(error)),
    );
  }, [job]);

  async function take(file: File): Promise<void> {
    setTrouble(null);
    if (file.size > schema.bounds.receipt_bytes_max) {
      setTrouble(`${file.name}: ${count(file.size)} bytes, a receipt has at most ${count(schema.bounds.receipt_bytes_max)}`);
      return;
    }
    setDropped({ name: file.name, data: new Uint8Array(await file.arrayBuffer()) });
  }

  const outcome = dropped !== null && trust.genesis !== null ? judge(dropped.data, trust.genesis) : null;
  return (
    <>
      <Heading>Verify a receipt</Heading>
      <p class="lead">Everything is checked in this browser. No file leaves it, and the node is asked for nothing but, if you like, the genesis.</p>
      <Section title="1. What you trust"><TrustPart trust={trust} setTrust={setTrust} serve={serve} /></Section>
      <Section title="2. The receipt">
        <Drop take={take} paste={(text) => setDropped({ name: "pasted text", data: utf8(text) })} />
        {trouble !== null && <p class="trouble" role="alert">{trouble}</p>}
      </Section>
      <Section title="3. What it proves">
        <div aria-live="polite" id="outcome">
          {outcome === null || dropped === null
            ? <p class="empty">{trust.genesis === null && dropped !== null ? "a genesis is needed first" : "choose a receipt above"}</p>
            : <OutcomePart outcome={outcome} name={dropped.name} trust={trust} />}
        </div>
      </Section>
    </>
  );
}

function TrustPart({ trust, setTrust, serve }: { trust: Trust; setTrust: (trust: Trust) => void; serve: () => void }): JSX.Element {
  const genesis = trust.genesis;
  async function give(file: File | undefined): Promise<void> {
    if (file !== undefined) setTrust(trustOf(await file.text(), true));
  }
  return (
    <>
      <p class={`trust ${trust.given ? "good" : "wait"}`} id="trust">
        {trust.given
          ? <><strong>The genesis you gave.</strong> The verdict rests on nothing that this node says. The page itself still came from it: <code>assay receipt verify</code> needs neither.</>
          : <><strong>The genesis this node serves.</strong> A dishonest node could serve another one: compare the digest with one from a source of yours, or give your own genesis file.</>}
      </p>
      {trust.error !== null && <p class="trouble" role="alert">No genesis: {trust.error}</p>}
      {genesis !== null && (
        <Facts rows={[
          ["Chain", <code>{genesis.chainId}</code>],
          ["Genesis digest", <Id value={toHex(genesis.digest)} whole />],
          ["Validators", `${genesis.validators.length}, stake ${amount(genesis.stakeTotal)}; a certificate needs ${amount(genesis.quorumStake)}`],
        ]} />
      )}
      <div class="choose">
        <label class="button plain">
          Give a genesis file
          <input type="file" id="genesis-file" accept=".json,application/json" onChange={(event) => void give(event.currentTarget.files?.[0])} />
        </label>
        {trust.given && <button type="button" class="button plain" onClick={serve}>Back to the node’s</button>}
      </div>
      <details>
        <summary>or paste it</summary>
        <textarea rows={4} aria-label="genesis file as text" id="genesis-text" spellcheck={false}
          onChange={(event) => event.currentTarget.value.trim() !== "" && setTrust(trustOf(event.currentTarget.value, true))} />
      </details>
    </>
  );
}

function Drop({ take, paste }: { take: (file: File) => Promise<void>; paste: (text: string) => void }): JSX.Element {
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  function onDrop(event: DragEvent): void {
    event.preventDefault();
    setOver(false);
    const file = event.dataTransfer?.files[0];
    if (file !== undefined) void take(file);
  }
  return (
    <>
      <div class={`drop ${over ? "over" : ""}`} id="drop" onDrop={onDrop}
        onDragOver={(event) => { event.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)}>
        <p>Drop a receipt here, JSON or protobuf</p>
        <label class="button">
          Choose a file
          <input ref={input} type="file" id="receipt-file" onChange={(event) => {
            const file = event.currentTarget.files?.[0];
            if (file !== undefined) void take(file);
            event.currentTarget.value = "";
          }} />
        </label>
      </div>
      <details>
        <summary>or paste it</summary>
        <textarea rows={4} aria-label="receipt as text" id="receipt-text" spellcheck={false}
          onChange={(event) => event.currentTarget.value.trim() !== "" && paste(event.currentTarget.value)} />
      </details>
    </>
  );
}

function OutcomePart({ outcome, name, trust }: { outcome: Outcome; name: string; trust: Trust }): JSX.Element {
  const failed = outcome.ok ? -1 : outcome.passed.length;
  return (
    <>
      <div class={`verdict ${outcome.ok ? "good" : "bad"}`} data-outcome={outcome.ok ? "VERIFIED" : outcome.reason}>
        <strong>{outcome.ok ? "✓ Proven" : "✗ It proves nothing"}</strong>
        <span>{name}, against the genesis {trust.given ? "you gave" : "this node serves"}</span>
        {!outcome.ok && <p><code>{outcome.reason}</code> {outcome.detail}</p>}
      </div>
      <ol class="checks">
        {CHECKS.map((check, at) => {
          const state = at === failed ? "bad" : outcome.passed.includes(check) ? "good" : "dim";
          const [title, text] = CHECK_WORDS[check];
          return (
            <li key={check} class={state}>
              <span aria-hidden="true">{state === "good" ? "✓" : state === "bad" ? "✗" : "–"}</span>
              <strong>{title}</strong> {text}
              <span class="hidden">{state === "good" ? ": holds" : state === "bad" ? ": fails" : ": not reached"}</span>
            </li>
          );
        })}
      </ol>
      {outcome.ok && <Proven verified={outcome.verified} />}
    </>
  );
}

function Proven({ verified }: { verified: Verified }): JSX.Element {
  const ruled = verified.receipt["job_receipt"] as Fields;
  const header = verified.receipt["header"] as Fields;
  const result = verified.result;
  const rows: [string, ComponentChildren][] = [
    ["Ruling", <Badge name={ruled["status"] as string} />],
    ["Job", <Id value={toHex(ruled["job"] as Uint8Array)} href={`#/job/${toHex(ruled["job"] as Uint8Array)}`} />],
    ["Asked by", address(ruled["requester"])],
    ["Answered by", address(ruled["provider"])],
    ["Settled in block", `${count(ruled["height"] as bigint)}, vouched for by block ${count(header["height"] as bigint)}`],
    ["Final by", `validators ${verified.signers.join(", ")}: ${amount(verified.signedStake)} of ${amount(verified.totalStake)} stake`],
  ];
  const verdicts = ruled["verdicts"] as Fields[];
  return (
    <>
      <Facts rows={rows} />
      <h3>Asked</h3>
      <Question request={verified.request} />
      <h3>Answered</h3>
      {result === null ? <p class="empty">nobody answered</p> : (
        <>
          <blockquote class="answer">{result["text"] as string}</blockquote>
          <p class="note">{count((result["token_ids"] as bigint[]).length)} tokens, engine <code>{result["engine_profile"] as string}</code></p>
        </>
      )}
      <h3>Verdicts</h3>
      <Table caption="What the committee found" rows={verdicts} rowKey={(verdict) => Number(verdict["validator"])} empty="no verdict"
        columns={[
          { title: "Verifier", cell: (verdict) => `validator ${String(verdict["validator"])}` },
          { title: "Verdict", cell: (verdict) => <Badge name={verdict["verdict"] as string} /> },
          { title: "Engine", cell: (verdict) => <code>{verdict["engine_profile"] as string}</code> },
        ]} />
    </>
  );
}

function address(key: Fields[string] | undefined): JSX.Element {
  return <AccountLink id={key instanceof Uint8Array ? encodeAddress(key) : null} />;
}

function Question({ request }: { request: Message }): JSX.Element {
  const input = request["input"] as Message;
  const chat = input["chat"] as Message | undefined;
  if (chat !== undefined) {
    return <>{(chat["messages"] as Message[]).map((turn, at) => (
      <blockquote key={at}>
        <span class="role">{protobufName("Role", turn["role"] as bigint).replace("ROLE_", "").toLowerCase()}</span>{turn["content"] as string}
      </blockquote>
    ))}</>;
  }
  if (input["text"] !== undefined) return <blockquote>{input["text"] as string}</blockquote>;
  const ids = (input["token_ids"] as Message | undefined)?.["ids"] as bigint[] | undefined;
  return <blockquote>{count(ids?.length ?? 0)} token ids</blockquote>;
}
