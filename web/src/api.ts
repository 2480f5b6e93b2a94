/** What the node answers under `/api`; `chain/explorer` has the other side. */

export interface Status {
  chain_id: string;
  genesis: string;
  validator: number;
  height: string;
  final_height: string;
  view: string;
  timestamp_ms: string;
  peers: { validator: number; connected: boolean; address: string }[];
  runtime_ready: boolean;
  runtimes: { address: string; healthy: boolean; detail: string }[];
  open_jobs: number;
  pending_transactions: number;
  voting: boolean;
  detail: string;
  version: string;
  pruned_through: number;
  committee_size: number;
}

export interface Block {
  height: number;
  view: number;
  digest: string;
  parent: string;
  proposer: number;
  timestamp_ms: number;
  transactions: number;
  settled_jobs: number;
  signers: number;
  execution_root: string;
  state_root: string;
  receipts_root: string;
  events_root: string;
}

export interface JobChange {
  job: string;
  status: string;
  provider: string | null;
}

export interface BlockNews extends Block {
  executed_after_ms: number | null;
  jobs: JobChange[];
}

export interface BlockDetail extends Block {
  beacon: string;
  executed_height: number;
  executed_root: string;
  certified_height: number | null;
  certified_by: number[];
  cut: { lane: number; sequence: number; digest: string }[];
  transaction_list: Transaction[];
  job_changes: JobChange[];
}

export interface Transaction {
  id: string;
  height: number;
  accepted: boolean;
  reason: string;
  fee: string;
  timestamp_ms?: number;
}

export interface Transactions {
  transactions: Transaction[];
  before: number | null;
}

export interface Scores {
  positions: number;
  replay_mismatches: number;
  margin_max: number;
  margin_sum: string;
  distance_max: number;
  distance_sum: string;
  outside_candidates: number;
  doubt_sum: string;
  input_tokens: number;
  finish_plausible: boolean;
  text_matches: boolean;
}

/** A sum may be at most base + rate x doubt, all in 2^-20. */
export interface Bound {
  base: number;
  rate: number;
}

export interface Thresholds {
  mismatch_bound: Bound;
  margin_max: number;
  margin_bound: Bound;
  distance_max: number;
  distance_bound: Bound;
  outside_bound: Bound;
  fingerprint_tolerance: number;
}

export interface Seat {
  validator: number;
  round: number;
  committed: boolean;
  verdict: string;
  scores: Scores | null;
  engine_profile: string;
}

export interface Result {
  token_ids: number[];
  logprobs: number[];
  finish_reason: string;
  input_tokens: number;
  text: string;
  engine_profile: string;
}

export interface Job {
  job: string;
  status: string;
  requester: string | null;
  model: string;
  provider: string | null;
  operator: number;
  attempts: number;
  max_price: string;
  escrow: string;
  requested_height: string;
  deadline_ms: string;
  seed: string;
  input_tokens: number;
  output_tokens: number;
  committee: Seat[];
  result: Result | null;
  requested_ms: string;
  answered_height: string;
  engine_profile: string;
}

export interface ListedJob extends Job {
  answered_ms: number | null;
  settled_height: number | null;
  settled_ms: number | null;
}

export interface Step {
  status: string;
  provider: string | null;
  height: number;
  timestamp_ms: number | null;
}

export interface Ruling {
  status: string;
  height: number;
  verdicts: {
    validator: number;
    engine_profile: string;
    verdict: string;
    scores: Scores;
    thresholds: Thresholds;
  }[];
  payments: { account: string | null; amount: string }[];
}

export interface AskedRequest {
  model: string;
  input: {
    text: string;
    chat: { messages: { role: string; content: string }[] } | null;
    token_ids: { ids: number[] } | null;
  } | null;
  sampling: {
    temperature_milli: number;
    top_k: number;
    top_p_milli: number;
    max_output_tokens: number;
  } | null;
  tier: string;
}

/** One offer in one draw: what became of it, and why. */
export interface Candidate {
  provider: string | null;
  standing: string;
  why: string;
  weight: string;
  input_price: string;
  output_price: string;
  capacity: number;
  open_jobs: number;
  price_needed: string;
  stake: string;
}

export interface Choice {
  attempt: number;
  height: string;
  escrow: string;
  provider: string | null;
  complete: boolean;
  candidates: Candidate[];
}

export interface Appeal {
  job: string;
  status: string;
  deadline_ms: string;
  bond: string;
  arbiters: Seat[];
  ruled_height: string;
  paid: string;
}

export interface JobDetail extends Job {
  explanation: { choices: Choice[]; now: Choice | null };
  appeal: Appeal | null;
  request: AskedRequest | null;
  transaction: string | null;
  ruling: Ruling | null;
  history: Step[];
}

export interface Model {
  model: string;
  owner: string | null;
  name: string;
  context_tokens: number;
  royalty_bps: number;
  parameters: string;
  pairs: { provider_profile: string; verifier_profile: string; thresholds: Thresholds | null }[];
  verifiers: { validator: number; engine_profile: string }[];
}

export interface Provider {
  model: string;
  provider: string | null;
  input_price: string;
  output_price: string;
  capacity: number;
  operator: number;
  open_jobs: number;
  completed: string;
  failed: string;
  engine_profile: string;
  stake: string;
}

/** What the state holds for and against providers and validators; logarithms in 2^-20 nats. */
export interface Standings {
  providers: {
    model: string;
    provider: string | null;
    standing: number;
    traps: string;
    margin_log: string;
    distance_log: string;
    limit_log: string;
    jobs_bet_on: string;
    ejected_height: string;
    held: string;
    held_until_ms: string;
    open_appeals: number;
  }[];
  validators: {
    validator: number;
    seats: number;
    passed: number;
    failed: number;
    abstained: number;
    voided: number;
    hidden: number;
    silent: number;
    slashed: string;
  }[];
  jobs: number;
}

export interface Validators {
  blocks: number;
  judged: number;
  validators: {
    index: number;
    account: string | null;
    signing_key: string;
    stake: string;
    address: string;
    this_node: boolean;
    connected: boolean;
    /** active, waiting, unbonding or jailed. */
    status: string;
    fault: string;
    convicted_height: number;
    missed: number;
    certificates: number;
    proposed: number;
  }[];
}

export interface Account {
  account: string;
  public_key: string;
  balance: string;
  stake: string;
  unbonding: string;
  unbonding_until_ms: string;
}

export interface Point {
  height: number;
  timestamp_ms: number;
  transactions: number;
  executed_after_ms: number | null;
}

/** What the node refused, in its own words. */
export class ApiError extends Error {
  constructor(readonly reason: string, detail: string) {
    super(detail);
  }
}

/** Relative to the page, so that a proxy may serve it under any path. */
export function apiUrl(path: string): string {
  return `./api/${path}`;
}

export async function getText(path: string): Promise<string> {
  let response: Response;
  try {
    response = await fetch(apiUrl(path));
  } catch {
    throw new ApiError("UNREACHABLE", "the node does not answer; this page tries again by itself");
  }
  const text = await response.text();
  if (response.ok) return text;
  try {
    const { reason, detail } = JSON.parse(text) as { reason: string; detail: string };
    throw new ApiError(reason, detail);
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError(`HTTP ${response.status}`, "the node answered something unexpected");
  }
}

export async function getJson<T>(path: string): Promise<T> {
  return JSON.parse(await getText(path)) as T;
}
