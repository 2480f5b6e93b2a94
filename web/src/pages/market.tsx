/** Who takes part: models, providers, validators, accounts. */
import type { JSX } from "preact";
import type { Account, Bound, Model, Provider, Standings, Validators } from "../api";
import { amount, count, dateTime, nats, words } from "../format";
import { useData } from "../live";
import { AccountLink, Badge, Facts, Heading, Id, Section, Table, Trouble, Waiting } from "../parts";

/** A bound in words: at its start, and more for each token that is wholly in doubt. */
const line = (bound: Bound | undefined): string =>
  bound === undefined ? "–" : `${nats(bound.base)} + ${nats(bound.rate)} × doubt`;

export function Models(): JSX.Element {
  const { data, error } = useData<Model[]>("models");
  return (
    <>
      <Heading>Models</Heading>
      <p class="lead">A model is a package of weights named by its digest, registered with what an honest result may score for each calibrated pair of engines.</p>
      <Trouble error={error} />
      {data === null ? <Waiting error={error} />
        : data.length === 0 ? <p class="empty">no model is registered</p>
        : data.map((model) => (
          <Section key={model.model} title={model.name}>
            <Facts rows={[
              ["Package", <Id value={model.model} whole />],
              ["Owner", <AccountLink id={model.owner} />],
              ["Royalty", `${model.royalty_bps / 100}%`],
              ["Weights", `${count(model.parameters)}; a token through them takes a compute unit for each million`],
              ["Context", `${count(model.context_tokens)} tokens`],
              ["Verified by", model.verifiers.length === 0 ? "nobody" : model.verifiers.map((one) => `validator ${one.validator}`).join(", ")],
            ]} />
            <Table caption="Calibration: thresholds for each pair of engines" rows={model.pairs} empty="no pair"
              rowKey={(pair) => pair.provider_profile + pair.verifier_profile}
              columns={[
                { title: "Answers with", cell: (pair) => <code>{pair.provider_profile}</code> },
                { title: "Verified with", cell: (pair) => <code>{pair.verifier_profile}</code> },
                { title: "Mismatches", numeric: true, cell: (pair) => line(pair.thresholds?.mismatch_bound) },
                { title: "Margin, nats", numeric: true, cell: (pair) => nats(pair.thresholds?.margin_max ?? 0) },
                { title: "Distance, nats", numeric: true, cell: (pair) => nats(pair.thresholds?.distance_max ?? 0) },
                { title: "Sum of distances", numeric: true, cell: (pair) => line(pair.thresholds?.distance_bound) },
                { title: "Fingerprint", numeric: true, cell: (pair) => nats(pair.thresholds?.fingerprint_tolerance ?? 0) },
              ]} />
          </Section>
        ))}
    </>
  );
}

/** How far from ejection. */
function evidence(one: Standings["providers"][number] | undefined): JSX.Element | string {
  if (one === undefined) return "–";
  const scaled = (value: string): string => (Number(value) / 2 ** 20).toFixed(1);
  const appeals = one.open_appeals > 0 ? `; ${one.open_appeals} appeals open` : "";
  if (one.ejected_height !== "0") {
    const held = one.held === "0" ? "" : `, ${amount(one.held)} held until ${dateTime(Number(one.held_until_ms))}`;
    return <><Badge name="ejected" /> block {count(one.ejected_height)}{held}{appeals}</>;
  }
  if (one.jobs_bet_on === "0") return `none is gathered${appeals}`;
  const wealth = Number(one.margin_log) > Number(one.distance_log) ? one.margin_log : one.distance_log;
  return `${scaled(wealth)} of ${scaled(one.limit_log)}, ${count(one.jobs_bet_on)} jobs${appeals}`;
}

export function Providers(): JSX.Element {
  const { data, error } = useData<Provider[]>("providers");
  const { data: standings } = useData<Standings>("standings");
  const record = (offer: Provider): Standings["providers"][number] | undefined =>
    standings?.providers.find((one) => one.provider === offer.provider && one.model === offer.model);
  return (
    <>
      <Heading>Providers</Heading>
      <p class="lead">Accounts that have staked and offer a model at a price. Their record counts the jobs they were paid for, and those they failed. Standing, of 1,000, fades with jobs and weighs in the draw. Evidence is what audited jobs have together shown against a provider: at its limit it is ejected; honest jobs lower it on the whole.</p>
      <Trouble error={error} />
      {data === null ? <Waiting error={error} /> : (
        <Table caption="Offers" rows={data} rowKey={(offer) => `${offer.provider}-${offer.model}`} empty="nobody offers a model"
          columns={[
            { title: "Provider", cell: (offer) => <AccountLink id={offer.provider} /> },
            { title: "Operator", cell: (offer) => `validator ${offer.operator}` },
            { title: "Completed", numeric: true, cell: (offer) => count(offer.completed) },
            { title: "Failed", numeric: true, cell: (offer) => count(offer.failed) },
            { title: "Standing", numeric: true, cell: (offer) => { const one = record(offer); return one === undefined ? "–" : count(one.standing); } },
            { title: "Evidence, nats", cell: (offer) => evidence(record(offer)) },
            { title: "Open", numeric: true, cell: (offer) => (offer.capacity === 0 ? "withdrawn" : `${offer.open_jobs} of ${offer.capacity}`) },
            { title: "Grain a token in, out", numeric: true, cell: (offer) => `${count(offer.input_price)}, ${count(offer.output_price)}` },
            { title: "Stake", numeric: true, cell: (offer) => amount(offer.stake) },
            { title: "Model", cell: (offer) => <Id value={offer.model} href="#/models" /> },
            { title: "Engine", cell: (offer) => <code>{offer.engine_profile}</code> },
          ]} />
      )}
    </>
  );
}

export function ValidatorsPage(): JSX.Element {
  const { data, error } = useData<Validators>("validators");
  const { data: standings } = useData<Standings>("standings");
  return (
    <>
      <Heading>Validators</Heading>
      <Trouble error={error} />
      {data === null ? <Waiting error={error} /> : (
        <>
          <p class="lead">
            Missed votes: of {count(data.judged)} final blocks that this node followed, those in whose view it heard nothing from
            the validator. Certificates and proposals are of the newest {count(data.blocks)} blocks; a certificate is complete with two
            thirds of the stake, so the slowest honest signer is often absent from it.
          </p>
          <Table caption="The validator set" rows={data.validators} rowKey={(one) => one.index} empty="none"
            columns={[
              { title: "Validator", cell: (one) => <>{one.index}{one.this_node && " (this node)"}</> },
              { title: "Standing", cell: (one) => (one.fault !== "" ? <><Badge name="convicted" /> {words(one.fault)}, block {one.convicted_height}</> : one.status !== "active" ? <Badge name={one.status} /> : <Badge name={one.connected ? "connected" : "not connected"} />) },
              { title: "Missed votes", numeric: true, cell: (one) => `${count(one.missed)} of ${count(data.judged)}` },
              { title: "Certificates", numeric: true, cell: (one) => `${count(one.certificates)} of ${data.blocks}` },
              { title: "Proposed", numeric: true, cell: (one) => count(one.proposed) },
              { title: "Stake", numeric: true, cell: (one) => amount(one.stake) },
              { title: "Account", cell: (one) => <AccountLink id={one.account} /> },
              { title: "Signing key", cell: (one) => <Id value={one.signing_key} /> },
              { title: "Address", cell: (one) => <code>{one.address}</code> },
            ]} />
          {standings !== null && <Seats standings={standings} />}
        </>
      )}
    </>
  );
}

/** What validators said from their seats. */
function Seats({ standings }: { standings: Standings }): JSX.Element {
  return (
    <Section title="Seats on committees">
      <p class="lead">
        Of the {count(standings.jobs)} newest settled jobs in state. Voided: its fingerprint was out of the others’ tolerance. Hidden: it committed, and
        never revealed. Silent: it did not commit.
      </p>
      <Table caption="Words by validator" rows={standings.validators} rowKey={(one) => one.validator} empty="none"
        columns={[
          { title: "Validator", cell: (one) => String(one.validator) },
          { title: "Seats", numeric: true, cell: (one) => count(one.seats) },
          { title: "Pass", numeric: true, cell: (one) => count(one.passed) },
          { title: "Fail", numeric: true, cell: (one) => count(one.failed) },
          { title: "Abstained", numeric: true, cell: (one) => count(one.abstained) },
          { title: "Voided", numeric: true, cell: (one) => count(one.voided) },
          { title: "Hidden", numeric: true, cell: (one) => count(one.hidden) },
          { title: "Silent", numeric: true, cell: (one) => count(one.silent) },
          { title: "Slashed by evidence", numeric: true, cell: (one) => amount(one.slashed) },
        ]} />
    </Section>
  );
}

export function AccountPage({ id }: { id: string }): JSX.Element {
  const { data, error } = useData<Account>(`accounts/${encodeURIComponent(id)}`);
  return (
    <>
      <Heading>Account</Heading>
      {data === null ? <Waiting error={error} /> : (
        <Facts rows={[
          ["Address", <Id value={data.account} whole />],
          ["Public key", <Id value={data.public_key} whole />],
          ["Balance", amount(data.balance)],
          ["Stake", amount(data.stake)],
          ["Unbonding", data.unbonding === "0" ? "none" : `${amount(data.unbonding)} until ${dateTime(Number(data.unbonding_until_ms))}`],
        ]} />
      )}
    </>
  );
}
