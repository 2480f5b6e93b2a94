/** News of the chain while the page is open, and data that is read again when there is some. */
import { useEffect, useState } from "preact/hooks";
import { ApiError, apiUrl, type BlockNews, getJson } from "./api";

type Listener = (news: BlockNews) => void;

const REFRESH_MS = 1000;
const RETRY_MS = 5000;
const RETRIED = new Set(["UNREACHABLE", "BUSY"]);

const listeners = new Set<Listener>();
const watchers = new Set<(live: boolean) => void>();
let isLive = false;

function setLive(live: boolean): void {
  isLive = live;
  for (const watcher of watchers) watcher(live);
}

/** Open the one stream of news. The browser connects again by itself. */
export function follow(): void {
  const source = new EventSource(apiUrl("events"));
  source.addEventListener("hello", () => setLive(true));
  source.addEventListener("block", (message) => {
    const news = JSON.parse((message as MessageEvent<string>).data) as BlockNews;
    for (const listener of listeners) listener(news);
  });
  source.addEventListener("error", () => {
    setLive(false);
    // A refused connection is closed for good, one that broke is opened again by the browser.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, RETRY_MS);
  });
}

export function useLive(): boolean {
  const [live, change] = useState(isLive);
  useEffect(() => {
    watchers.add(change);
    return () => void watchers.delete(change);
  }, []);
  return live;
}

/** Call `listener` with each new block while the component is shown. */
export function useNews(listener: Listener): void {
  useEffect(() => {
    listeners.add(listener);
    return () => void listeners.delete(listener);
  });
}

export interface Loaded<T> {
  data: T | null;
  error: ApiError | null;
}

/** Data of one path: read now, and again when `news` says so, but at most once a second. */
export function useData<T>(path: string, wants: (news: BlockNews) => boolean = () => true): Loaded<T> {
  const [loaded, change] = useState<Loaded<T> & { path: string }>({ data: null, error: null, path });
  const [reading] = useState({ timer: 0, readMs: 0 });

  function read(): void {
    reading.timer = 0;
    reading.readMs = Date.now();
    getJson<T>(path).then(
      (data) => change({ data, error: null, path }),
      (error: unknown) => {
        const known = error instanceof ApiError ? error : new ApiError("PAGE", String(error));
        change((before) => ({ data: before.path === path ? before.data : null, error: known, path }));
        if (RETRIED.has(known.reason)) plan(RETRY_MS);
      },
    );
  }

  function plan(delayMs: number): void {
    if (reading.timer === 0) reading.timer = window.setTimeout(read, delayMs);
  }

  useEffect(() => {
    read();
    return () => {
      window.clearTimeout(reading.timer);
      reading.timer = 0;
    };
  }, [path]);
  useNews((news) => {
    if (wants(news)) plan(Math.max(0, REFRESH_MS - (Date.now() - reading.readMs)));
  });
  return loaded.path === path ? loaded : { data: null, error: null };
}
