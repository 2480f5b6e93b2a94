/**
 * The page's verifier and the chain's own program say the same of every file, in the same words.
 * tests/web/test_verifier_agreement.py writes the files and what Python says of each, and runs this.
 */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { verifyReceipt } from "../src/verify/checks";
import { type Genesis, GenesisError, readGenesis } from "../src/verify/genesis";
import { loadReceipt, ReceiptInvalid } from "../src/verify/receipt";

interface Vectors {
  genesis: string;
  chain_id: string;
  receipts: { name: string; file: string; verdict: string }[];
  genesis_files: { name: string; text: string; digest: string | null }[];
}

const path = process.env["ASSAY_VECTORS"];
const vectors = path === undefined ? null : (JSON.parse(readFileSync(path, "utf8")) as Vectors);

function verdictOf(file: Uint8Array, genesis: Genesis): string {
  try {
    verifyReceipt(loadReceipt(file), genesis);
    return "VERIFIED";
  } catch (error) {
    if (!(error instanceof ReceiptInvalid)) throw error;
    return error.reason;
  }
}

function digestOf(text: string): string | null {
  try {
    return Buffer.from(readGenesis(text).digest).toString("hex");
  } catch (error) {
    if (!(error instanceof GenesisError)) throw error;
    return null;
  }
}

test.skipIf(vectors === null)("every file is judged as the chain's own program judges it", () => {
  const genesis = readGenesis(vectors!.genesis);
  expect(genesis.chainId).toBe(vectors!.chain_id);
  const disagreements = vectors!.receipts
    .map(({ name, file, verdict }) => ({
      name, python: verdict, page: verdictOf(new Uint8Array(Buffer.from(file, "base64")), genesis),
    }))
    .filter(({ python, page }) => python !== page);
  expect(disagreements).toEqual([]);
});

test.skipIf(vectors === null)("a genesis file has the digest that the chain gives it, or none", () => {
  for (const { name, text, digest } of vectors!.genesis_files) {
    expect({ name, digest: digestOf(text) }).toEqual({ name, digest });
  }
});
