import type { JSX } from "preact";
import type { Block, BlockDetail } from "../api";
import { count, dateTime } from "../format";
import { useData } from "../live";
import {
  Badge, BlockLink, Facts, Heading, Id, JobLink, Section, Table, Time, Trouble, Waiting,
} from "../parts";
import { TransactionTable } from "./transactions";

const LIMIT = 25;

export function BlockTable({ blocks }: { blocks: readonly Block[] }): JSX.Element {
  return (
    <Table caption="Blocks, newest first" rows={blocks} rowKey={(block) => block.height} empty="no block yet"
      columns={[
        { title: "Block", cell: (block) => <BlockLink height={block.height} /> },
        { title: "Age", cell: (block) => <Time ms={block.timestamp_ms} /> },
        { title: "Proposer", cell: (block) => `validator ${block.proposer}` },
        { title: "Transactions", numeric: true, cell: (block) => count(block.transactions) },
        { title: "Settled jobs", numeric: true, cell: (block) => count(block.settled_jobs) },
        { title: "Signers", numeric: true, cell: (block) => (block.signers === 0 ? "–" : block.signers) },
        { title: "Digest", cell: (block) => <Id value={block.digest} /> },
      ]} />
  );
}

export function Blocks({ before }: { before: number }): JSX.Element {
  const path = before === 0 ? `blocks?limit=${LIMIT}` : `blocks?limit=${LIMIT}&before=${before}`;
  const { data, error } = useData<Block[]>(path, () => before === 0);
  const lowest = data?.at(-1)?.height ?? 0;
  return (
    <>
      <Heading>Blocks</Heading>
      <Trouble error={error} />
      {data === null ? <Waiting error={error} /> : <BlockTable blocks={data} />}
      <nav class="pager" aria-label="more blocks">
        {before !== 0 && <a href="#/blocks">newest</a>}
        {lowest > 1 && <a href={`#/blocks?before=${lowest}`}>older</a>}
      </nav>
    </>
  );
}

export function BlockPage({ height }: { height: string }): JSX.Element {
  const { data, error } = useData<BlockDetail>(`blocks/${encodeURIComponent(height)}`, () => false);
  if (data === null) return <><Heading>Block {height}</Heading><Waiting error={error} /></>;
  return (
    <>
      <Heading aside={<>
        {data.height > 1 && <a href={`#/block/${data.height - 1}`}>previous</a>}
        <a href={`#/block/${data.height + 1}`}>next</a>
      </>}>Block {count(data.height)}</Heading>
      <Facts rows={[
        ["Time", dateTime(data.timestamp_ms)],
        ["Proposer", `validator ${data.proposer}, view ${data.view}`],
        ["Digest", <Id value={data.digest} whole />],
        ["Parent", <Id value={data.parent} whole />],
        ["Final by", certificateOf(data)],
        ["Vouches for", <>block {data.executed_height === 0 ? "0 (genesis)" : <BlockLink height={data.executed_height} />}, execution root <Id value={data.executed_root} /></>],
        ["Execution root", <Id value={data.execution_root} whole />],
        ["State root", <Id value={data.state_root} whole />],
        ["Receipts root", <Id value={data.receipts_root} whole />],
        ["Events root", <Id value={data.events_root} whole />],
        ["Beacon", <Id value={data.beacon} whole />],
      ]} />
      <Section title="Transactions"><TransactionTable transactions={data.transaction_list} /></Section>
      <Section title="Jobs that moved on">
        <Table caption="Jobs that this block moved on" rows={data.job_changes} empty="none"
          rowKey={(change) => change.job + change.status}
          columns={[
            { title: "Job", cell: (change) => <JobLink id={change.job} /> },
            { title: "Now", cell: (change) => <Badge name={change.status} /> },
            { title: "Provider", cell: (change) => <Id value={change.provider} /> },
          ]} />
      </Section>
      <Section title="Cut over the lanes">
        <Table caption="The newest batch of each lane that this block makes final" rows={data.cut}
          rowKey={(tip) => tip.lane} empty="no lane has a batch yet"
          columns={[
            { title: "Lane", cell: (tip) => `validator ${tip.lane}` },
            { title: "Batch", numeric: true, cell: (tip) => count(tip.sequence) },
            { title: "Digest", cell: (tip) => <Id value={tip.digest} /> },
          ]} />
      </Section>
    </>
  );
}

function certificateOf(block: BlockDetail): string {
  if (block.certified_height === null) return "its child's certificate, not here yet";
  const signers = `validators ${block.certified_by.join(", ")}`;
  return block.certified_height === block.height ? signers
    : `${signers}, who signed block ${block.certified_height}`;
}
