/** Requests to endpoints through the real queue, and the same requests as commands. */

import { ApiError, endpointPath, eventsOf, linesOf, send } from "./api.js";
import { live } from "./live.js";

/** The most characters of a body that are shown. */
const MOST = 200_000;

/** What a client accepts that reads a response as it comes. */
const STREAM = "text/event-stream";

/** The caller's key: in memory alone, so that it is gone with the page. */
export const caller = { key: "" };

/**
 * @typedef {{type: string, body: any, accept?: string, needsKey?: boolean, id?: string}} Call The body is a text, a
 *   file or a form; `needsKey`: the endpoint is for holders of keys alone; `id`: by which the server remembers it.
 * @typedef {{status: number, type: string, first: number, time: number, size: number, headers: [string, string][],
 *   text: string, items: string[], url: string, isDone: boolean, error: string}} Answer
 */

/**
 * Sends a request to an endpoint, and notes the response as it comes.
 * @param {string} label
 * @param {Call} call
 * @param {AbortSignal} signal
 * @param {(answer: Answer) => void} note Is called with each piece.
 * @param {(item: string) => void} [onItem] Is called with each item of a stream.
 */
export async function callEndpoint(label, { type, body, accept, id }, signal, note, onItem) {
  const answer = /** @type {Answer} */ ({ status: 0, type: "", first: 0, time: 0, size: 0, headers: [], text: "", items: [], url: "", isDone: false, error: "" });
  const begin = performance.now();
  const passed = () => (performance.now() - begin) / 1000;
  /** @type {Record<string, string>} */
  const headers = {};
  // A form has a boundary that the browser chooses.
  if (type) headers["Content-Type"] = type;
  if (accept) headers.Accept = accept;
  if (id) headers["X-Request-Id"] = id;
  if (caller.key) headers["Caller-Authorization"] = `Bearer ${caller.key}`;
  try {
    const response = await send("POST", endpointPath(label, "/call"), { body, headers, signal });
    if (!response.headers.has("litplex-endpoint")) {
      const told = await response.json().catch(() => ({}));
      throw new ApiError(response.status, told.error ?? `status ${response.status}`);
    }
    answer.status = response.status;
    answer.type = (response.headers.get("content-type") ?? "").split(";")[0];
    answer.first = passed();
    answer.headers = [...response.headers].filter(([name]) => name !== "litplex-endpoint");
    note(answer);
    await read(response, answer, () => note({ ...answer, time: passed() }), onItem);
  } catch (/** @type {any} */ error) {
    answer.error = signal.aborted ? "Stopped." : error.message;
  }
  answer.time = passed();
  answer.isDone = true;
  note(answer);
  return answer;
}

/** @param {Response} response @param {Answer} answer @param {() => void} changed @param {((item: string) => void) | undefined} onItem */
async function read(response, answer, changed, onItem) {
  if (answer.type === "text/event-stream" || answer.type.includes("ndjson") || answer.type === "application/jsonl") {
    const items = answer.type === "text/event-stream" ? dataOf(response) : linesOf(response);
    for await (const item of items) {
      if (item === "") continue;
      answer.size += item.length;
      answer.items.push(item);
      onItem?.(item);
      changed();
    }
  } else if (/^(image|audio|video)\//.test(answer.type)) {
    const blob = await response.blob();
    answer.size = blob.size;
    answer.url = URL.createObjectURL(blob);
  } else if (/json|text|xml|javascript|^$/.test(answer.type)) {
    const decoder = new TextDecoder();
    const reader = response.body?.getReader();
    for (let piece = await reader?.read(); piece && !piece.done; piece = await reader?.read()) {
      answer.size += piece.value.length;
      if (answer.text.length < MOST) answer.text += decoder.decode(piece.value, { stream: true });
      changed();
    }
  } else {
    const blob = await response.blob();
    answer.size = blob.size;
    answer.url = URL.createObjectURL(blob);
  }
}

/** @param {Response} response */
async function* dataOf(response) {
  for await (const { data } of eventsOf(response)) yield data;
}

/** Returns the address of an endpoint on the server's own port. @param {string} label */
function address(label) {
  const { url = "", endpoints = [] } = live.status ?? {};
  // A server that listens on all addresses is reached as the page is.
  const reached = url.replace(/\/\/(0\.0\.0\.0|\[::\])(?=:|$)/, `//${location.hostname}`);
  return `${reached}${endpoints.find((each) => each.label === label)?.path ?? label}`;
}

/** @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** Returns a request as a command; keys are read from the environment. @param {string} label @param {Call} call */
export function asCurl(label, { type, body, accept, needsKey }) {
  const lines = [`curl ${quoted(address(label))}`];
  if (caller.key || needsKey) lines.push(`-H "Authorization: Bearer $LITPLEX_KEY"`);
  if (accept === STREAM) lines.push(`-N -H 'Accept: ${STREAM}'`);
  if (body instanceof FormData) {
    for (const [name, value] of body)
      lines.push(value instanceof File ? `-F ${quoted(`${name}=@${value.name}`)}` : `-F ${quoted(`${name}=${value}`)}`);
  } else {
    if (type) lines.push(`-H ${quoted(`Content-Type: ${type}`)}`);
    lines.push(body instanceof File ? `--data-binary ${quoted(`@${body.name}`)}` : `--data-raw ${quoted(String(body))}`);
  }
  return lines.join(" \\\n  ");
}

/** Returns a request as a program. @param {string} label @param {Call} call */
export function asPython(label, { type, body, accept, needsKey }) {
  const text = (/** @type {any} */ value) => JSON.stringify(value);
  const hasKey = caller.key || needsKey;
  const headers = hasKey ? ['"Authorization": f"Bearer {os.environ[\'LITPLEX_KEY\']}"'] : [];
  const options = [];
  if (body instanceof FormData) {
    const entries = [...body];
    const files = entries.filter(([, value]) => value instanceof File).map(([name, value]) => `(${text(name)}, open(${text(/** @type {File} */ (value).name)}, "rb"))`);
    const fields = entries.filter(([, value]) => !(value instanceof File)).map(([name, value]) => `${text(name)}: ${text(value)}`);
    options.push(`files=[${files.join(", ")}]`);
    if (fields.length) options.push(`data={${fields.join(", ")}}`);
  } else {
    if (type) headers.push(`"Content-Type": ${text(type)}`);
    options.push(body instanceof File ? `content=open(${text(body.name)}, "rb").read()` : `content=${text(String(body))}.encode()`);
  }
  if (accept === STREAM) headers.push(`"Accept": ${text(STREAM)}`);
  if (headers.length) options.push(`headers={${headers.join(", ")}}`);
  return [
    hasKey ? "import os\n" : null,
    "import httpx",
    "",
    `response = httpx.post(\n    ${[text(address(label)), ...options, "timeout=None"].join(",\n    ")},\n)`,
    "print(response.status_code, response.text)",
  ]
    .filter((line) => line !== false && line !== null)
    .join("\n");
}
