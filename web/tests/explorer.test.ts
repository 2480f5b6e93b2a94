/**
 * The page in a real browser, served by a validator of a real network.
 * tests/e2e/test_explorer.py starts the network, asks it something and runs this.
 */
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import axe from "axe-core";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

interface Setting {
  url: string;
  /** A command that asks one question and ends when its receipt is there. */
  ask: string[];
  receipt: string;
  receipt_protobuf: string;
  genesis: string;
  other_genesis: string;
  job: string;
  transaction: string;
  block: number;
  account: string;
  screenshots: string;
}

const given = process.env["ASSAY_EXPLORER"];
const setting = (given === undefined ? {} : JSON.parse(given)) as Setting;
const BOUND_MS = 60_000;
/** Pages that between them have every colour. */
const IN_DARK = new Set(["overview", "job", "verify"]);
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

let browser: Browser;
let page: Page;
const asked = new Set<string>();
const complaints: string[] = [];

async function open(width = 1280, colorScheme: "light" | "dark" = "light"): Promise<Page> {
  const opened = await browser.newPage({ viewport: { width, height: 800 }, colorScheme });
  opened.setDefaultTimeout(BOUND_MS);
  opened.on("request", (request) => asked.add(new URL(request.url()).origin));
  opened.on("pageerror", (error) => complaints.push(error.message));
  opened.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  return opened;
}

async function go(path: string, on = page): Promise<void> {
  await on.goto("about:blank"); // another hash alone would leave the page as it was
  await on.goto(`${setting.url}/#/${path}`);
  await on.locator("main h1").waitFor();
  await on.locator("main").getByText("asking the node…").first().waitFor({ state: "detached" });
}

const pages = (): Record<string, string> => ({
  overview: "",
  blocks: "blocks",
  block: `block/${setting.block}`,
  transactions: "transactions",
  transaction: `transaction/${setting.transaction}`,
  jobs: "jobs",
  job: `job/${setting.job}`,
  models: "models",
  providers: "providers",
  validators: "validators",
  account: `account/${setting.account}`,
  verify: `verify/${setting.job}`,
});

describe.skipIf(given === undefined)("the explorer", () => {
  beforeAll(async () => {
    mkdirSync(setting.screenshots, { recursive: true });
    browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: FLAGS });
    page = await open();
  });
  afterAll(async () => {
    await browser?.close();
    expect(complaints).toEqual([]);
    expect([...asked]).toEqual([setting.url]);
  });

  test("each page shows what the chain has", async () => {
    const seen: Record<string, RegExp> = {
      overview: /Executed block[\s\S]*Throughput[\s\S]*Finality[\s\S]*verification[\s\S]*Newest blocks/,
      blocks: /validator \d/,
      block: /Execution root[\s\S]*Cut over the lanes/,
      transactions: /accepted/,
      transaction: /accepted[\s\S]*ASY/,
      jobs: /verified[\s\S]*3 of 3 pass/,
      job: /requested[\s\S]*assigned[\s\S]*answered[\s\S]*committing[\s\S]*revealing[\s\S]*verified[\s\S]*Attempt 1[\s\S]*chosen[\s\S]*took part in the draw[\s\S]*not chosen[\s\S]*\d%[\s\S]*user[\s\S]*validator \d[\s\S]*pass[\s\S]*0 of 0/,
      models: /smollm2[\s\S]*Calibration[\s\S]*reference-float32/i,
      providers: /validator 3[\s\S]*none is gathered[\s\S]* ASY[\s\S]*reference-float32/,
      validators: /\(this node\)[\s\S]*\d+ of \d+[\s\S]*newest settled jobs[\s\S]*Abstained/i,
      account: /Balance[\s\S]*ASY/,
      verify: /Proven[\s\S]*Certificate/,
    };
    for (const [name, path] of Object.entries(pages())) {
      await go(path);
      await expect.poll(() => page.locator("main").innerText(), { timeout: BOUND_MS, message: name }).toMatch(seen[name]!);
      await page.screenshot({ path: `${setting.screenshots}/${name}.png`, fullPage: true });
    }
  });

  test("no page is wider than a small screen, in either colours", async () => {
    const phone = await open(360, "dark");
    for (const [name, path] of Object.entries(pages())) {
      await go(path, phone);
      const tooWide = await phone.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      expect({ name, tooWide }).toEqual({ name, tooWide: 0 });
      if (name === "overview" || name === "job") {
        await phone.screenshot({ path: `${setting.screenshots}/${name}-phone.png` });
      }
    }
    await phone.close();
  });

  test("readers of the screen find names, order and contrast on every page", async () => {
    for (const scheme of ["light", "dark"] as const) {
      const read = await open(1280, scheme);
      const shown = Object.entries(pages()).filter(([name]) => scheme === "light" || IN_DARK.has(name));
      for (const [name, path] of shown) {
        await go(path, read);
        await read.evaluate(axe.source);
        const found = await read.evaluate(async () =>
          (await (window as unknown as { axe: typeof axe }).axe.run()).violations.map(
            (violation) => `${violation.id}: ${violation.nodes.map((node) => node.html).slice(0, 3).join(" ")}`,
          ));
        expect({ name, scheme, found }).toEqual({ name, scheme, found: [] });
      }
      await read.close();
    }
  });

  test("the keyboard alone leads to a page, and its heading has the focus", async () => {
    await go("");
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("to the content");
    for (let presses = 0; presses < 20; presses++) {
      await page.keyboard.press("Tab");
      if ((await page.evaluate(() => document.activeElement?.textContent)) === "Validators") break;
    }
    await page.keyboard.press("Enter");
    await page.locator("h1", { hasText: "Validators" }).waitFor();
    expect(await page.evaluate(() => document.activeElement?.tagName)).toBe("H1");
    expect(await page.title()).toBe("Validators · Assay explorer");
  });

  test("a height, an id and an address are found; anything else is said to be none", async () => {
    const find = page.getByRole("searchbox");
    for (const [text, title] of [
      [String(setting.block), "Block"], [setting.job, "Job"], [setting.transaction, "Transaction"], [setting.account, "Account"],
    ] as const) {
      await find.fill(text);
      await find.press("Enter");
      await page.locator("h1", { hasText: title }).waitFor();
    }
    await find.fill("gold");
    await find.press("Enter");
    await page.getByRole("alert").getByText("64 hexadecimal digits").waitFor();
    await go("job/" + "0".repeat(64));
    await page.getByRole("alert").getByText("unknown job").waitFor();
    complaints.length = 0; // the browser reports the 404 it was asked for
  });

  test("a question is followed from its request to its verdicts without a reload", async () => {
    await go("jobs");
    const before = await page.locator("tbody tr").count();
    await page.evaluate(() => Object.assign(window, { kept: true }));
    const asking = spawn(setting.ask[0]!, setting.ask.slice(1), { stdio: "ignore" });
    const ended = new Promise<number | null>((resolve) => asking.on("exit", resolve));
    await expect.poll(() => page.locator("tbody tr").count(), { timeout: BOUND_MS }).toBe(before + 1);
    await page.locator("tbody tr a").first().click();
    await page.locator("h1", { hasText: "Job" }).waitFor();
    const statuses = new Set<string>();
    const text = new Set<string>();
    await expect.poll(async () => {
      statuses.add(await page.locator(".heading .badge").innerText());
      const answer = page.locator("blockquote.answer");
      if ((await answer.count()) > 0) text.add(await answer.innerText());
      return [...statuses].at(-1);
    }, { timeout: 2 * BOUND_MS, interval: 20 }).toBe("verified");
    expect(await ended).toBe(0);
    expect(statuses.size).toBeGreaterThan(1);
    expect(text.size).toBeGreaterThan(0);
    expect(await page.evaluate(() => (window as unknown as { kept?: boolean }).kept)).toBe(true);
    await page.locator("main").getByText("validator", { exact: false }).first().waitFor();
  });

  test("a receipt is proven against the node's genesis, and against one's own", async () => {
    await go("verify");
    await page.locator("#trust", { hasText: "this node serves" }).waitFor();
    for (const file of [setting.receipt, setting.receipt_protobuf]) {
      await page.locator("#receipt-file").setInputFiles(file);
      await page.locator("[data-outcome=VERIFIED]", { hasText: file.split("/").at(-1)! }).waitFor();
    }
    await page.locator("#genesis-file").setInputFiles(setting.genesis);
    await page.locator("#trust", { hasText: "genesis you gave" }).waitFor();
    await page.locator("[data-outcome=VERIFIED]", { hasText: "you gave" }).waitFor();
    await page.screenshot({ path: `${setting.screenshots}/verify-own-genesis.png`, fullPage: true });
    await page.locator("#genesis-file").setInputFiles(setting.other_genesis);
    await page.locator("[data-outcome=WRONG_CHAIN]").waitFor();
    await page.getByRole("button", { name: "Back to the node’s" }).click();
    await page.locator("[data-outcome=VERIFIED]", { hasText: "this node serves" }).waitFor();
    await page.getByText("or paste it").first().click();
    await page.locator("#genesis-text").fill("{}");
    await page.locator("#genesis-text").blur();
    await page.getByRole("alert").getByText("missing").waitFor();
  });

  test("a receipt with any one value changed is refused", async () => {
    await go("verify");
    await page.locator("#trust", { hasText: "this node serves" }).waitFor();
    const outcomes = await page.evaluate(dropAll, tampered(readFileSync(setting.receipt, "utf8")));
    expect(Object.keys(outcomes).length).toBeGreaterThan(100);
    expect(Object.entries(outcomes).filter(([, outcome]) => outcome === "VERIFIED")).toEqual([]);
    for (const fault of ["UNREADABLE", "WRONG_CHAIN", "WRONG_JOB", "NOT_IN_BLOCK", "EXECUTION_MISMATCH", "HEADER_MISMATCH", "BAD_SIGNATURE"]) {
      expect(Object.values(outcomes)).toContain(fault);
    }
    await page.screenshot({ path: `${setting.screenshots}/verify-refused.png`, fullPage: true });
  });
});

/** The same receipt with one value changed, for each value in it, by the place of the value. */
function tampered(text: string): Record<string, string> {
  const files: Record<string, string> = {};
  const walk = (value: unknown, place: (string | number)[]): void => {
    if (value !== null && typeof value === "object") {
      for (const [name, item] of Object.entries(value)) walk(item, [...place, Array.isArray(value) ? Number(name) : name]);
      return;
    }
    const changed = JSON.parse(text) as Record<string | number, unknown>;
    let holder = changed;
    for (const step of place.slice(0, -1)) holder = holder[step] as Record<string | number, unknown>;
    holder[place.at(-1)!] = other(value);
    files[place.join(".")] = JSON.stringify(changed);
  };
  walk(JSON.parse(text), []);
  return files;
}

function other(value: unknown): unknown {
  if (typeof value === "boolean") return !value;
  if (typeof value === "number") return value + 1;
  if (value === null) return 0;
  const written = String(value);
  if (/^[0-9a-f]+$/.test(written)) return (written.startsWith("0") ? "1" : "0") + written.slice(1);
  return written === "PASS" ? "FAIL" : `${written}x`;
}

/** Runs in the page: drops each file as a user would, and reads the verdict that is shown. */
async function dropAll(files: Record<string, string>): Promise<Record<string, string>> {
  const outcomes: Record<string, string> = {};
  const place = document.querySelector("#drop")!;
  for (const [name, text] of Object.entries(files)) {
    const carried = new DataTransfer();
    carried.items.add(new File([text], `${name}.json`));
    place.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
    for (;;) {
      const shown = document.querySelector<HTMLElement>("#outcome [data-outcome]");
      if (shown?.querySelector("span")?.textContent?.startsWith(`${name}.json,`)) {
        outcomes[name] = shown.dataset["outcome"] ?? "";
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }
  return outcomes;
}
