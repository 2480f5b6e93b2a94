import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { apiUrl, type Appeal, type AskedRequest, type Choice, type JobDetail, type ListedJob, type Ruling, type Scores, type Seat, type Thresholds } from "../api";
import { allowed, amount, count, dateTime, duration, nats, share } from "../format";
import { useData } from "../live";
import {
  AccountLink, Badge, BlockLink, Facts, Heading, Id, JobLink, Section, Table, Time, TransactionLink, Trouble, Waiting,
} from "../parts";

const FINAL = new Set(["VERIFIED", "REJECTED", "REFUNDED"]);
/** Every step of a job that goes well; what it has not reached is shown as still to come. */
const STEPS = ["REQUESTED", "ASSIGNED", "ANSWERED", "COMMITTING", "REVEALING", "VERIFIED"];
const STEP_WORDS: Record<string, string> = {
  REQUESTED: "asked for, its price held in escrow",
  ASSIGNED: "given to a provider by the beacon, with the sampling seed",
  ANSWERED: "result on chain",
  COMMITTING: "committee drawn; its members bind themselves to a verdict",
  REVEALING: "verdicts opened",
  VERIFIED: "verdicts agree: paid, and final",
  REJECTED: "a majority found it wrong: refunded",
  REFUNDED: "nobody answered or ruled in time: refunded",
};

export function JobTable({ jobs }: { jobs: readonly ListedJob[] }): JSX.Element {
  return (
    <Table caption="Jobs, newest first" rows={jobs} rowKey={(job) => job.job} empty="nobody has asked anything lately"
      columns={[
        { title: "Job", cell: (job) => <JobLink id={job.job} /> },
        { title: "Status", cell: (job) => <Badge name={job.status} /> },
        { title: "Asked", cell: (job) => <Time ms={Number(job.requested_ms)} /> },
        { title: "Provider", cell: (job) => (job.provider === null ? <span class="dim">none yet</span> : <>validator {job.operator}’s</>) },
        { title: "Tokens in, out", numeric: true, cell: (job) => `${count(job.input_tokens)}, ${count(job.output_tokens)}` },
        { title: "Verdicts", cell: (job) => verdicts(job.committee) },
        { title: "Took", numeric: true, cell: (job) => (job.settled_ms === null ? "–" : duration(job.settled_ms - Number(job.requested_ms))) },
      ]} />
  );
}

function verdicts(committee: readonly Seat[]): string {
  if (committee.length === 0) return "–";
  const passed = committee.filter((seat) => seat.verdict === "PASS").length;
  return `${passed} of ${committee.length} pass`;
}

export function Jobs(): JSX.Element {
  const { data, error } = useData<ListedJob[]>("jobs");
  return (
    <>
      <Heading>Jobs</Heading>
      <p class="lead">Each job is one question to a model: asked, assigned by the beacon, answered, audited by a committee drawn afterwards, and settled. This list follows the chain.</p>
      <Trouble error={error} />
      {data === null ? <Waiting error={error} /> : <JobTable jobs={data} />}
    </>
  );
}

export function JobPage({ id }: { id: string }): JSX.Element {
  const { data: job, error } = useData<JobDetail>(
    `jobs/${encodeURIComponent(id)}`, (news) => news.jobs.some((change) => change.job === id),
  );
  if (job === null) return <><Heading>Job</Heading><Waiting error={error} /></>;
  const settled = FINAL.has(job.status);
  return (
    <>
      <Heading aside={<Badge name={job.status} />}>Job</Heading>
      <Facts rows={[
        ["Id", <Id value={job.job} whole />],
        ...(job.transaction === null ? [] : [["Transaction", <TransactionLink id={job.transaction} />] as [string, JSX.Element]]),
        ["Asked by", <AccountLink id={job.requester} />],
        ["Model", <Id value={job.model} href="#/models" />],
        ["Provider", job.provider === null ? <span class="dim">none yet</span> : <><AccountLink id={job.provider} /> at validator {job.operator}{job.attempts > 1 ? `, attempt ${job.attempts}` : ""}</>],
        ["Price", `at most ${amount(job.max_price)}${settled ? "" : `, ${amount(job.escrow)} held in escrow`}`],
        ["Seed", <Id value={job.seed} />],
      ]} />
      {settled && (
        <p class="actions">
          <a class="button" href={`#/verify/${job.job}`}>Verify its receipt in this browser</a>
          <a class="button plain" href={apiUrl(`jobs/${job.job}/receipt`)} download={`receipt-${job.job.slice(0, 8)}.json`}>Download the receipt</a>
        </p>
      )}
      <Section title="Steps"><Steps job={job} /></Section>
      <Section title="Choice of the provider"><Choices job={job} /></Section>
      {job.request !== null && <Section title="Request"><Asked request={job.request} /></Section>}
      <Section title="Answer"><Answer job={job} /></Section>
      <Section title="Committee"><Committee job={job} /></Section>
      {job.appeal !== null && <Section title="Appeal"><Appealed appeal={job.appeal} /></Section>}
      {job.ruling !== null && <Section title="Payments"><Payments ruling={job.ruling} /></Section>}
    </>
  );
}

function Steps({ job }: { job: JobDetail }): JSX.Element {
  const start = Number(job.requested_ms);
  const reached = job.history;
  const named = new Set(reached.map((step) => step.status));
  const coming = FINAL.has(job.status) ? [] : STEPS.slice(STEPS.indexOf(job.status) + 1).filter((step) => !named.has(step));
  if (reached.length === 0) return <p class="empty">its row has left the state; the receipt tells the outcome</p>;
  return (
    <ol class="steps">
      {reached.map((step, at) => (
        <li key={at} class="done">
          {FINAL.has(step.status) || at === reached.length - 1 ? <Badge name={step.status} />
            : <span class="badge dim">{step.status.toLowerCase()}</span>}
          <span>{STEP_WORDS[step.status]}</span>
          <span class="when">block <BlockLink height={step.height} />{step.timestamp_ms !== null && `, after ${duration(Math.max(0, step.timestamp_ms - start))}`}</span>
        </li>
      ))}
      {coming.map((step) => (
        <li key={step} class="coming"><span class="badge outline">{step.toLowerCase()}</span><span>{STEP_WORDS[step]}</span></li>
      ))}
    </ol>
  );
}

/** Why each attempt went where it did: the offers as they stood then, as this node wrote them down. */
function Choices({ job }: { job: JobDetail }): JSX.Element {
  const { choices, now } = job.explanation;
  if (choices.length === 0 && now === null) {
    return <p class="empty">{job.attempts === 0 && !FINAL.has(job.status) ? "not drawn yet" : "this node keeps no draw of it"}</p>;
  }
  return (
    <>
      {choices.map((choice) => <Draw key={choice.attempt} choice={choice}
        caption={`Attempt ${choice.attempt}, block ${count(choice.height)}: ${choice.provider === null ? "nobody could take it" : "drawn by the beacon"}`} />)}
      {now !== null && <Draw choice={now} caption="It waits for a provider; the offers as they stand now" />}
      {choices.some((choice) => !choice.complete) && <p class="note">there were more offers than a node writes down</p>}
    </>
  );
}

function Draw({ choice, caption }: { choice: Choice; caption: string }): JSX.Element {
  const total = choice.candidates.reduce((sum, one) => sum + BigInt(one.weight), 0n);
  return (
    <>
      <p class="dim" aria-hidden="true">{caption}</p>
      <Table caption={caption} rows={choice.candidates} rowKey={(one) => one.provider ?? ""} empty="nobody offered the model"
        columns={[
          { title: "Provider", cell: (one) => <AccountLink id={one.provider} /> },
          { title: "Outcome", cell: (one) => (choice.provider !== null && one.provider === choice.provider ? <Badge name="chosen" /> : <span class="dim">not chosen</span>) },
          { title: "Why", cell: (one) => one.why },
          { title: "Chance", numeric: true, cell: (one) => (one.weight === "0" ? "–" : share(BigInt(one.weight), total)) },
          { title: "Grain a token in, out", numeric: true, cell: (one) => `${count(one.input_price)}, ${count(one.output_price)}` },
          { title: "Jobs open", numeric: true, cell: (one) => `${one.open_jobs} of ${one.capacity}` },
          { title: "Needs, of the escrow", numeric: true, cell: (one) => `${amount(one.price_needed)} of ${amount(choice.escrow)}` },
          { title: "Stake", numeric: true, cell: (one) => amount(one.stake) },
        ]} />
    </>
  );
}

function Appealed({ appeal }: { appeal: Appeal }): JSX.Element {
  const ruled = appeal.ruled_height !== "0";
  return (
    <>
      <Facts rows={[
        ["Appeal", <Badge name={appeal.status} />],
        ...(ruled ? [
          ["Ruled", <>block <BlockLink height={appeal.ruled_height} /></>] as [string, JSX.Element],
          ["Paid to the provider", amount(appeal.paid)] as [string, string],
        ] : [
          ["This step ends", dateTime(Number(appeal.deadline_ms))] as [string, string],
          ["Bond", amount(appeal.bond)] as [string, string],
        ]),
      ]} />
      {!ruled && (
        <Table caption="Arbiters, all with the exact engine" rows={appeal.arbiters} rowKey={(seat) => seat.validator} empty="none"
          columns={[
            { title: "Arbiter", cell: (seat) => `validator ${seat.validator}` },
            { title: "Word", cell: (seat) => (seat.verdict !== "" ? <Badge name={seat.verdict} /> : seat.committed ? "committed" : "awaited") },
          ]} />
      )}
    </>
  );
}

function Asked({ request }: { request: AskedRequest }): JSX.Element {
  const turns = request.input?.chat?.messages;
  const sampling = request.sampling;
  return (
    <>
      {turns !== undefined ? turns.map((turn, at) => (
        <blockquote key={at}><span class="role">{turn.role.replace("ROLE_", "").toLowerCase()}</span>{turn.content}</blockquote>
      )) : <blockquote>{request.input?.token_ids != null ? `${request.input.token_ids.ids.length} token ids` : request.input?.text}</blockquote>}
      {sampling !== null && (
        <p class="note">
          temperature {sampling.temperature_milli / 1000}, at most {count(sampling.max_output_tokens)} tokens
          {sampling.top_k > 0 && `, top-k ${sampling.top_k}`}{sampling.top_p_milli > 0 && sampling.top_p_milli < 1000 && `, top-p ${sampling.top_p_milli / 1000}`}
        </p>
      )}
    </>
  );
}

/** Tokens as the provider sends them, while it does; what is on chain afterwards. */
function Answer({ job }: { job: JobDetail }): JSX.Element {
  const [streamed, change] = useState({ text: "", tokens: 0 });
  const streaming = job.status === "ASSIGNED";
  useEffect(() => {
    if (!streaming) return undefined;
    change({ text: "", tokens: 0 });
    const source = new EventSource(apiUrl(`jobs/${job.job}/tokens`));
    source.addEventListener("tokens", (message) => {
      const chunk = JSON.parse((message as MessageEvent<string>).data) as { text: string; token_ids: number[] };
      change((before) => ({ text: before.text + chunk.text, tokens: before.tokens + chunk.token_ids.length }));
    });
    source.addEventListener("end", () => source.close());
    source.addEventListener("error", () => source.close());
    return () => source.close();
  }, [job.job, job.attempts, streaming]);
  const text = job.result?.text ?? streamed.text;
  if (text === "" && job.result === null) {
    return <p class="empty" role="status">{streaming ? "the provider is at work" : FINAL.has(job.status) ? "there is no answer, or this node no longer keeps it" : "not yet"}</p>;
  }
  return (
    <>
      <blockquote class="answer" aria-live="polite">{text}{job.result === null && <span class="cursor" aria-hidden="true" />}</blockquote>
      <p class="note">
        {job.result === null ? `${count(streamed.tokens)} tokens streamed so far; not on chain yet`
          : `${count(job.input_tokens)} tokens in, ${count(job.output_tokens)} out; ended by ${job.result.finish_reason.replace("FINISH_REASON_", "").toLowerCase().replace("_", " ")}; engine ${job.result.engine_profile}`}
      </p>
    </>
  );
}

interface Row {
  validator: number;
  round: number;
  committed: boolean;
  verdict: string;
  engine_profile: string;
  scores: Scores | null;
  thresholds: Thresholds | null;
}

/** What a seat without a verdict did. */
function unsaid(row: Row, ended: boolean): string {
  if (ended) return row.committed ? "committed, never revealed" : "did not commit";
  return row.committed ? "committed" : "awaited";
}

function Committee({ job }: { job: JobDetail }): JSX.Element {
  const judged = new Map((job.ruling?.verdicts ?? []).map((verdict) => [verdict.validator, verdict]));
  const rows: Row[] = job.committee.length > 0
    ? job.committee.map((seat) => ({ ...seat, thresholds: judged.get(seat.validator)?.thresholds ?? null }))
    : [...judged.values()].map((verdict) => ({ ...verdict, round: 0, committed: true }));
  const limit = (name: "margin_max" | "distance_max", row: Row): string =>
    row.thresholds === null ? "" : ` of ${nats(row.thresholds[name])}`;
  const mismatches = (scores: Scores, thresholds: Thresholds | null): string => {
    if (thresholds === null) return String(scores.replay_mismatches);
    return `${scores.replay_mismatches} of ${Math.floor(allowed(thresholds.mismatch_bound, scores.doubt_sum) / 2 ** 20)}`;
  };
  return (
    <Table caption="Verifiers, and what each measured, of what an honest result may score" rows={rows} rowKey={(row) => `${row.validator}-${row.round}`}
      empty="drawn by the beacon once the result is on chain"
      columns={[
        { title: "Verifier", cell: (row) => `validator ${row.validator}${row.round > 0 ? `, round ${row.round + 1}` : ""}` },
        { title: "Verdict", cell: (row) => (row.verdict !== "" ? <Badge name={row.verdict} /> : unsaid(row, FINAL.has(job.status))) },
        { title: "Replay mismatches", numeric: true, cell: (row) => (row.scores === null ? "–" : mismatches(row.scores, row.thresholds)) },
        { title: "Margin, nats", numeric: true, cell: (row) => (row.scores === null ? "–" : `${nats(row.scores.margin_max)}${limit("margin_max", row)}`) },
        { title: "Distance, nats", numeric: true, cell: (row) => (row.scores === null ? "–" : `${nats(row.scores.distance_max)}${limit("distance_max", row)}`) },
        { title: "Engine", cell: (row) => <code>{row.engine_profile}</code> },
      ]} />
  );
}

function Payments({ ruling }: { ruling: Ruling }): JSX.Element {
  return (
    <Table caption="Credits made when the job was settled" rows={ruling.payments} rowKey={(payment) => `${payment.account}-${payment.amount}`} empty="none"
      columns={[
        { title: "To", cell: (payment) => <AccountLink id={payment.account} /> },
        { title: "Amount", numeric: true, cell: (payment) => amount(payment.amount) },
      ]} />
  );
}
