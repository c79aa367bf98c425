/** The admin API: requests with the key that the operator entered, and streams. */

/** The address of the API, which depends on where the page is served. */
const ROOT = new URL(document.documentElement.dataset.api ?? "dashboard/v1/", location.href.split("#")[0]);

/** Where the key is kept: as long as the tab, so that the page can be loaded again. No cookie has it. */
const KEY = "litplex-admin-key";

/** Whether other pages have the same origin, and could read what is kept: then the key is in memory alone. */
export const isShared = "shared" in document.documentElement.dataset;

/** The error of a request that the server refused, or that did not reach it (`status` 0). */
export class ApiError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** @type {string | null} */
let key = isShared ? null : sessionStorage.getItem(KEY);

/** Sets the key of all requests from now on. @param {string | null} value */
export function useKey(value) {
  key = value;
  if (isShared) return;
  if (value === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, value);
}

/**
 * Sends a request and returns the response, whatever its status.
 * @param {string} method
 * @param {string} path Below `/v1/`.
 * @param {{body?: BodyInit | null, headers?: Record<string, string>, signal?: AbortSignal}} [options]
 */
export async function send(method, path, { body, headers = {}, signal } = {}) {
  if (key !== null) headers = { ...headers, Authorization: `Bearer ${key}` };
  try {
    return await fetch(new URL(path, ROOT), {
      method,
      headers,
      body,
      signal,
      credentials: "omit",
      cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "The server does not respond.");
  }
}

/** @param {string} method @param {string} path @param {Parameters<typeof send>[2]} [options] */
async function accepted(method, path, options) {
  const response = await send(method, path, options);
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new ApiError(response.status, told.error ?? `status ${response.status}`);
}

/** Returns what a path shows. @param {string} path @param {AbortSignal} [signal] */
export async function get(path, signal) {
  return (await accepted("GET", path, { signal })).json();
}

/** Returns a text. @param {string} path */
export async function getText(path) {
  return (await accepted("GET", path)).text();
}

/** Sends JSON. @param {string} method @param {string} path @param {unknown} [value] */
export async function change(method, path, value) {
  const body = value === undefined ? undefined : JSON.stringify(value);
  /** @type {Record<string, string>} */
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const response = await accepted(method, path, { body, headers });
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

/** Returns the path of an operation on an endpoint. @param {string} label @param {string} [rest] */
export function endpointPath(label, rest = "") {
  return `endpoints/${encodeURIComponent(label)}${rest}`;
}

/**
 * Yields the lines of a body as they come.
 * @param {Response} response
 */
export async function* linesOf(response) {
  const body = response.body;
  if (!body) return;
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) yield line.endsWith("\r") ? line.slice(0, -1) : line;
    }
    if (rest) yield rest;
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** Yields objects, one a line. @param {string} path @param {AbortSignal} signal */
export async function* objects(path, signal) {
  for await (const line of linesOf(await accepted("GET", path, { signal })))
    if (line) yield JSON.parse(line);
}

/**
 * Yields the events of a stream (SSE).
 * @param {Response} response
 * @returns {AsyncGenerator<{id?: string, event?: string, data: string}>}
 */
export async function* eventsOf(response) {
  /** @type {{id?: string, event?: string, data?: string}} */
  let event = {};
  for await (const line of linesOf(response)) {
    if (line === "") {
      if (event.data !== undefined) yield { ...event, data: event.data };
      event = {};
      continue;
    }
    const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
    if (name === "data") event.data = event.data === undefined ? value : `${event.data}\n${value}`;
    else if (name === "id") event.id = value;
    else if (name === "event") event.event = value;
  }
}

/** Yields the events of the server from the one after `last`. @param {string | null} last @param {AbortSignal} signal */
export async function* events(last, signal) {
  /** @type {Record<string, string>} */
  const headers = last === null ? {} : { "Last-Event-ID": last };
  yield* eventsOf(await accepted("GET", "events", { headers, signal }));
}
