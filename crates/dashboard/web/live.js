/**
 * What the page knows of the server, kept up to date while the page is visible: its load each second, its
 * status after each event, and its events as they come. A page in the background asks for nothing.
 */

import { ApiError, events as followEvents, get, useKey } from "./api.js";
import { redraw } from "./ui/dom.js";

/** The time between two readings of the load in milliseconds. */
const LOAD_TIME = 1000;

/** The time after which the status is read without an event, while a worker starts and otherwise. */
const STARTING_TIME = 2000;
const STATUS_TIME = 5000;

/** The waits before the next try while the server does not respond. */
const RETRIES = [1000, 2000, 5000, 10_000];

/** The number of values of a sparkline, a second each. */
export const SPARK = 120;

/** The number of events that are kept. */
const EVENTS = 500;

/**
 * @typedef {{bad_input: number, model_error: number, timeout: number, cancelled: number,
 *   unavailable: number, worker_lost: number}} ErrorCounts
 * @typedef {{endpoint: string, state: string, workers_ready: number, workers: number, in_flight: number,
 *   queued: number, rate: number, job_rate: number, errors: ErrorCounts, p50: number | null,
 *   p99: number | null, memory: number | null, slow: string | null}} Load
 * @typedef {{slot: number, state: string, pid: number | null, device: string, in_flight: number,
 *   restarts: number, ready_for: number | null, starting_for: number | null, reason: string | null,
 *   last_line: {timestamp: string, text: string} | null, memory: number | null,
 *   gpu_memory: number | null}} Worker
 * @typedef {{generation: number, state: string, since: string, reason?: string, answers?: {compared: number, differed: number}, [more: string]: any}} Generation
 * @typedef {{predicted: number, predicted_gpu: number, is_measured: boolean, load_seconds: number, is_waiting: boolean,
 *   loads: number, hibernated: number, evictions: number, last_eviction?: string, hits: number, misses: number}} Residency
 * @typedef {{label: string, path: string, name: string, aliases: string[], kind: string, state: string,
 *   problem: string | null, wanted: number, min_workers: number | null, max_workers: number | null,
 *   queued: number, in_flight: number, requests: number, workers: Worker[],
 *   generations: Generation[], residency?: Residency, tier?: "hot" | "hibernated" | "template" | "cold"}} Endpoint
 * @typedef {{index: number, uuid: string, used: number, total: number, utilization: number | null}} Gpu
 * @typedef {{pid: number, url: string, admin_url: string | null, port: number, uptime: number, gpus: Gpu[],
 *   memory?: {held: number, budget: number}, endpoints: Endpoint[]}} Status
 * @typedef {{id: string, timestamp: string, event: string, endpoint?: string, [more: string]: any}} Event
 */

export const live = {
  /** Whether the first request has been answered. */
  isKnown: false,
  /** What the key opens; `null` without an accepted key. @type {{holder: string | null, may_change: boolean} | null} */
  session: null,
  /** Why no key is accepted. */
  refusal: "",
  /** @type {Status | null} */
  status: null,
  /** @type {Load[]} */
  load: [],
  /** Requests per second of the last seconds, by endpoint; `null` where nothing is known. @type {Map<string, (number | null)[]>} */
  sparks: new Map(),
  /** The newest first. @type {Event[]} */
  events: [],
  /** The state of the connection while it is lost. @type {{error: string, at: number} | null} */
  lost: null,
};

let lastEvent = /** @type {string | null} */ (null);
let statusAt = 0;
let failures = 0;
let timer = 0;
let running = /** @type {AbortController | null} */ (null);

/** Returns an endpoint's status. @param {string} label */
export const endpoint = (label) => live.status?.endpoints.find((each) => each.label === label);

/** Returns an endpoint's load. @param {string} label */
export const loadOf = (label) => live.load.find((each) => each.endpoint === label);

/** Signs in with a key, or without one where none is needed. @param {string | null} [key] */
export async function open(key) {
  if (key !== undefined) useKey(key);
  try {
    live.session = await get("session");
    [live.refusal, live.isKnown] = ["", true];
    start();
  } catch (error) {
    fail(error, key !== undefined && key !== null);
  }
  redraw();
}

/** Forgets the key. */
export function close() {
  stop();
  useKey(null);
  Object.assign(live, { session: null, refusal: "", status: null, load: [], events: [], lost: null });
  live.sparks.clear();
  lastEvent = null;
  redraw();
}

/** Handles the error of a request: the page asks for a key, or tries again later. @param {any} error @param {boolean} [isEntered] */
function fail(error, isEntered = false) {
  if (error instanceof ApiError && error.status === 401) {
    stop();
    useKey(null);
    const wasOpen = live.session !== null;
    Object.assign(live, { session: null, isKnown: true, lost: null });
    live.refusal = isEntered
      ? "The server does not accept this key."
      : wasOpen
        ? "The server no longer accepts the key."
        : "";
  } else {
    const wait = RETRIES[Math.min(failures++, RETRIES.length - 1)];
    live.lost = { error: error.message, at: Date.now() + wait };
    clearTimeout(timer);
    timer = setTimeout(live.session ? tick : () => open(), wait);
  }
  redraw();
}

/** Tries at once to reach the server again. */
export function retry() {
  clearTimeout(timer);
  if (live.session) tick();
  else open();
}

function start() {
  if (running || document.hidden) return;
  running = new AbortController();
  follow(running.signal);
  tick();
}

function stop() {
  clearTimeout(timer);
  running?.abort();
  running = null;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) stop();
  else if (live.session) start();
});

/** Reads the load, and the status where it is old. */
async function tick() {
  clearTimeout(timer);
  const signal = running?.signal;
  if (!signal) return;
  const begin = Date.now();
  try {
    const { endpoints } = await get("load", signal);
    noteLoad(endpoints);
    const isStarting = live.status?.endpoints.some(hasStarting);
    if (begin - statusAt >= (isStarting ? STARTING_TIME : STATUS_TIME)) await refresh(signal);
    [failures, live.lost] = [0, null];
  } catch (error) {
    if (!signal.aborted) fail(error);
    return;
  }
  if (signal.aborted) return;
  redraw();
  timer = setTimeout(tick, Math.max(LOAD_TIME - (Date.now() - begin), 200));
}

/** @param {Endpoint} endpoint */
const hasStarting = ({ workers }) => workers.some((worker) => worker.state === "starting");

/** Reads the status now: something was changed. @param {AbortSignal} [signal] */
export async function refresh(signal) {
  const before = live.status?.pid;
  live.status = await get("server", signal);
  statusAt = Date.now();
  if (before !== undefined && before !== live.status?.pid) live.sparks.clear();
  redraw();
}

/** @param {Load[]} loads */
function noteLoad(loads) {
  live.load = loads;
  for (const { endpoint, rate } of loads) {
    const known = live.sparks.get(endpoint) ?? Array(SPARK).fill(null);
    live.sparks.set(endpoint, [...known.slice(1), rate]);
    if (!live.sparks.has(`${endpoint} asked`)) {
      live.sparks.set(`${endpoint} asked`, []);
      past.push(endpoint);
    }
  }
  readPast();
}

/** The endpoints whose last minutes are to be read. @type {string[]} */
const past = [];
let isReading = false;

/** Fills sparklines with the history, one endpoint after another. */
async function readPast() {
  if (isReading) return;
  isReading = true;
  try {
    for (let label = past.shift(); label !== undefined; label = past.shift()) {
      const query = new URLSearchParams({ endpoint: label, seconds: String(SPARK), step: "1" });
      const { points } = await get(`history?${query}`, running?.signal);
      const spark = live.sparks.get(label);
      if (!spark) continue;
      const seen = spark.filter((value) => value !== null).length;
      const rates = points.map((/** @type {any} */ point) => point.rate);
      const kept = [...rates.slice(0, rates.length - seen), ...spark.slice(SPARK - seen)];
      live.sparks.set(label, [...Array(SPARK).fill(null), ...kept].slice(-SPARK));
    }
  } catch {
    // The next seconds fill it all the same.
  }
  isReading = false;
  redraw();
}

/** Follows the events, as long as the page is visible. @param {AbortSignal} signal */
async function follow(signal) {
  while (!signal.aborted) {
    try {
      for await (const { id, data } of followEvents(lastEvent, signal)) {
        lastEvent = id ?? lastEvent;
        live.events.unshift({ id, ...JSON.parse(data) });
        live.events.length = Math.min(live.events.length, EVENTS);
        // The next reading has the status, too; many events in a second cost one.
        statusAt = 0;
      }
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) return;
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}
