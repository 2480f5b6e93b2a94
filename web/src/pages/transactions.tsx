import type { JSX } from "preact";
import type { Transaction, Transactions } from "../api";
import { amount } from "../format";
import { useData } from "../live";
import { Badge, BlockLink, Facts, Heading, Id, Table, Time, TransactionLink, Trouble, Waiting } from "../parts";

const LIMIT = 25;

export function TransactionTable({ transactions }: { transactions: readonly Transaction[] }): JSX.Element {
  return (
    <Table caption="Transactions" rows={transactions} rowKey={(one) => one.id + one.height} empty="none here"
      columns={[
        { title: "Transaction", cell: (one) => <TransactionLink id={one.id} /> },
        { title: "Outcome", cell: (one) => <Outcome transaction={one} /> },
        { title: "Block", numeric: true, cell: (one) => <BlockLink height={one.height} /> },
        { title: "Fee", numeric: true, cell: (one) => amount(one.fee) },
        ...(transactions.some((one) => one.timestamp_ms !== undefined)
          ? [{ title: "Age", cell: (one: Transaction) => <Time ms={one.timestamp_ms} /> }]
          : []),
      ]} />
  );
}

function Outcome({ transaction }: { transaction: Transaction }): JSX.Element {
  return (
    <>
      <Badge name={transaction.accepted ? "accepted" : "refused"} />
      {!transaction.accepted && <> <code>{transaction.reason}</code></>}
    </>
  );
}

export function TransactionsPage({ before }: { before: number }): JSX.Element {
  const path = before === 0 ? `transactions?limit=${LIMIT}` : `transactions?limit=${LIMIT}&before=${before}`;
  const { data, error } = useData<Transactions>(path, (news) => before === 0 && news.transactions > 0);
  return (
    <>
      <Heading>Transactions</Heading>
      <Trouble error={error} />
      {data === null ? <Waiting error={error} /> : <TransactionTable transactions={data.transactions} />}
      <nav class="pager" aria-label="more transactions">
        {before !== 0 && <a href="#/transactions">newest</a>}
        {data?.before != null && <a href={`#/transactions?before=${data.before}`}>older</a>}
      </nav>
    </>
  );
}

export function TransactionPage({ id }: { id: string }): JSX.Element {
  const { data, error } = useData<Transaction>(`transactions/${encodeURIComponent(id)}`, () => false);
  return (
    <>
      <Heading>Transaction</Heading>
      {data === null ? <Waiting error={error} /> : (
        <Facts rows={[
          ["Id", <Id value={data.id} whole />],
          ["Outcome", <Outcome transaction={data} />],
          ["Block", <BlockLink height={data.height} />],
          ["Fee", amount(data.fee)],
        ]} />
      )}
    </>
  );
}
