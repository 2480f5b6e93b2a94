import type { JSX } from "preact";
import type { Block, ListedJob, Point, Status } from "../api";
import { type Bar, Chart } from "../chart";
import { clockTime, count, duration, quantile } from "../format";
import { useData } from "../live";
import { Heading, Section, Tile, Tiles, Time, Trouble, Waiting } from "../parts";
import { BlockTable } from "./blocks";
import { JobTable } from "./jobs";

const THROUGHPUT_BARS = 40;
const JOB_BARS = 30;
const SHOWN = 8;

/** Transactions a second, in equal slices of the time that the newest blocks span. */
export function throughput(points: readonly Point[]): Bar[] {
  const first = points[0];
  const last = points.at(-1);
  if (first === undefined || last === undefined || last.timestamp_ms <= first.timestamp_ms) return [];
  const sliceMs = (last.timestamp_ms - first.timestamp_ms) / THROUGHPUT_BARS;
  const sums = new Array<number>(THROUGHPUT_BARS).fill(0);
  // The first block's transactions came before the time that is shown.
  for (const point of points.slice(1)) {
    const at = Math.min(THROUGHPUT_BARS - 1, Math.floor((point.timestamp_ms - first.timestamp_ms) / sliceMs));
    sums[at] = (sums[at] ?? 0) + point.transactions;
  }
  return sums.map((sum, at) => ({
    label: clockTime(first.timestamp_ms + (at + 1) * sliceMs),
    values: [sum / (sliceMs / 1000)],
  }));
}

function finality(points: readonly Point[]): Bar[] {
  return points
    .filter((point) => point.executed_after_ms !== null)
    .map((point) => ({ label: `block ${point.height}`, values: [point.executed_after_ms] }));
}

function verification(jobs: readonly ListedJob[]): Bar[] {
  return jobs
    .filter((job) => job.answered_ms !== null && job.settled_ms !== null)
    .slice(0, JOB_BARS)
    .reverse()
    .map((job) => ({
      label: `job ${job.job.slice(0, 8)}`,
      values: [
        Math.max(0, (job.answered_ms ?? 0) - Number(job.requested_ms)),
        (job.settled_ms ?? 0) - (job.answered_ms ?? 0),
      ],
    }));
}

function spread(values: (number | null | undefined)[], what: string): string {
  const known = values.filter((value): value is number => typeof value === "number");
  const half = quantile(known, 0.5);
  const most = quantile(known, 0.95);
  if (half === null || most === null) return "";
  return `half within ${duration(half)}, 95% within ${duration(most)} (${known.length} ${what})`;
}

const perSecond = (value: number): string => (value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en"));

export function Overview(): JSX.Element {
  const status = useData<Status>("status");
  const blocks = useData<Block[]>(`blocks?limit=${SHOWN}`);
  const jobs = useData<ListedJob[]>("jobs");
  const chart = useData<Point[]>("chart");
  const points = chart.data ?? [];
  const rate = throughput(points);
  const final = finality(points);
  const verified = verification(jobs.data ?? []);
  const total = points.slice(1).reduce((sum, point) => sum + point.transactions, 0);
  const spanMs = (points.at(-1)?.timestamp_ms ?? 0) - (points[0]?.timestamp_ms ?? 0);
  return (
    <>
      <Heading>Overview</Heading>
      <Trouble error={status.error} />
      {status.data === null ? <Waiting error={null} /> : <Standing status={status.data} />}
      <div class="charts">
        <Chart title="Throughput" bars={rate} series={["transactions a second"]} format={perSecond}
          summary={`${count(total)} transactions in the last ${duration(spanMs)}`} empty="no blocks yet" />
        <Chart title="Finality" bars={final} series={["from proposal to executed here"]} format={duration}
          summary={spread(final.map((bar) => bar.values[0]), "blocks")}
          empty="no block since this node started" />
        <Chart title="Jobs" bars={verified} series={["answer", "verification"]} format={duration}
          summary={`verified: ${spread(verified.map((bar) => bar.values[1]), "jobs") || "none yet"}`}
          empty="no job was settled lately" />
      </div>
      <Section title="Newest jobs">
        <Trouble error={jobs.error} />
        <JobTable jobs={(jobs.data ?? []).slice(0, SHOWN)} />
      </Section>
      <Section title="Newest blocks">
        <Trouble error={blocks.error} />
        <BlockTable blocks={blocks.data ?? []} />
      </Section>
    </>
  );
}

function Standing({ status }: { status: Status }): JSX.Element {
  const connected = status.peers.filter((peer) => peer.connected).length;
  const ready = status.runtimes.filter((runtime) => runtime.healthy).length;
  return (
    <>
      <Tiles>
        <Tile label="Executed block" note={<Time ms={Number(status.timestamp_ms)} />}>{count(status.height)}</Tile>
        <Tile label="Final block" note={`view ${count(status.view)}`}>{count(status.final_height)}</Tile>
        <Tile label="Open jobs" note={`${count(status.pending_transactions)} transactions wait`}>{count(status.open_jobs)}</Tile>
        <Tile label="Peers" note={`this is validator ${status.validator}`}>{connected} of {status.peers.length}</Tile>
        <Tile label="Runtimes" note={ready > 0 ? "inference is served here" : "none serves here"}>{ready} of {status.runtimes.length}</Tile>
      </Tiles>
      {!status.voting && <p class="trouble">This node does not vote: {status.detail}</p>}
    </>
  );
}
