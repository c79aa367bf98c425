/** The log, as it is written: of the server, an endpoint, a worker or a request. */

import { objects } from "../api.js";
import { live } from "../live.js";
import { h, redraw } from "../ui/dom.js";
import { button, field, nothing } from "../ui/parts.js";

/** The most lines that are shown. */
const MOST = 500;

/** The earlier lines that are read. */
const EARLIER = 200;

/** The most requests that a line of a batch names. */
const MOST_NAMED = 4;

const LEVELS = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

let chosen = { endpoint: "", worker: "", request: "" };
let level = "TRACE";
let words = "";
let isFollowing = true;
let error = "";
/** @type {{number: number, level: string, message: string, node: any}[]} */
let lines = [];
let next = 0;
let reading = /** @type {AbortController | null} */ (null);
let isShown = false;

async function read() {
  reading?.abort();
  const mine = (reading = new AbortController());
  [lines, error] = [[], ""];
  const query = new URLSearchParams(Object.entries(chosen).filter(([, value]) => value));
  query.set("follow", "true");
  if (![...Object.values(chosen)].some(Boolean)) query.set("lines", String(EARLIER));
  try {
    for await (const line of objects(`logs?${query}`, mine.signal)) add(line);
  } catch (/** @type {any} */ failed) {
    if (!mine.signal.aborted) error = failed.message;
  }
  if (reading === mine) reading = null;
  redraw();
}

/** @param {any} line */
function add(line) {
  const { timestamp, level = "", message = "", endpoint, worker, request_id, ...more } = line;
  delete more.target;
  const rest = Object.entries(more).map(([name, value]) => ` ${name}=${typeof value === "string" ? value : JSON.stringify(value)}`);
  // A line is made once; what is drawn again is the same.
  const node = h(
    `li.${String(level).toLowerCase()}`,
    { key: String(next) },
    h("time", null, String(timestamp).slice(11, 23)),
    h("b", null, level),
    h("span.of", null, worker ?? endpoint ?? ""),
    h("span.said", null, message, h("small", null, ...rest), namesOf(request_id)),
  );
  lines.push({ number: next++, level, message: `${message} ${worker ?? endpoint ?? ""}`, node });
  if (lines.length > MOST) lines.splice(0, lines.length - MOST);
  redraw();
}

/** Returns links to the lines of each of these requests. @param {string} [ids] */
function namesOf(ids) {
  const [named, more] = [ids?.split(" ") ?? [], MOST_NAMED];
  const link = (/** @type {string} */ id) => [
    " ",
    h("a.id", { href: `#/logs?request=${encodeURIComponent(id)}`, title: "Lines of this request" }, id.slice(-8)),
  ];
  return [...named.slice(0, more).map(link), named.length > more && ` +${named.length - more}`];
}

function stop() {
  reading?.abort();
  reading = null;
}

document.addEventListener("visibilitychange", () => {
  if (!isShown) return;
  if (document.hidden) stop();
  else if (isFollowing && !reading) read();
});

/** @type {import("../app.js").Page} */
export const logs = {
  title: () => "Logs",
  enter(_, query) {
    isShown = true;
    chosen = {
      endpoint: query.get("endpoint") ?? "",
      worker: query.get("worker") ?? "",
      request: query.get("request") ?? "",
    };
    isFollowing = true;
    read();
  },
  leave() {
    isShown = false;
    stop();
  },
  view() {
    const shown = lines.filter(
      (line) => LEVELS.indexOf(line.level) <= LEVELS.indexOf(level) && line.message.toLowerCase().includes(words.toLowerCase()),
    );
    return [
      h("h1", { tabindex: "-1" }, "Logs"),
      choices(),
      error && h("p.error", { role: "alert" }, error),
      h(
        "ol.log",
        { tabindex: "0", "aria-label": "Lines of the log", ref: stayAtEnd },
        shown.map(({ node }) => node),
      ),
      shown.length === 0 && nothing("No line yet."),
    ];
  },
};

/** Keeps the last line in sight, unless the person has scrolled up. @param {HTMLElement} list */
function stayAtEnd(list) {
  let isAtEnd = true;
  list.onscroll = () => (isAtEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 24);
  const watch = new MutationObserver(() => {
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  });
  watch.observe(list, { childList: true });
}

function choices() {
  const { endpoint, worker, request } = chosen;
  const endpoints = live.status?.endpoints ?? [];
  const workers = endpoints
    .filter(({ label }) => !endpoint || label === endpoint)
    .flatMap(({ label, workers }) => workers.map(({ slot }) => `${label}#${slot}`));
  const go = (/** @type {Partial<typeof chosen>} */ change) => {
    const query = Object.entries({ ...chosen, ...change }).filter(([, value]) => value);
    const hash = `#/logs${query.length ? `?${new URLSearchParams(query)}` : ""}`;
    if (location.hash !== hash) location.hash = hash;
  };
  const options = (/** @type {string} */ all, /** @type {string[]} */ values, /** @type {string} */ value) =>
    [["", all], ...[...new Set([...values, value])].filter(Boolean).map((each) => [each, each])].map(([name, label]) =>
      h("option", { value: name, key: name }, label),
    );
  return h(
    "div.tools.choices",
    null,
    field("Endpoint", h("select", { value: endpoint, onchange: (/** @type {any} */ event) => go({ endpoint: event.currentTarget.value, worker: "" }) }, options("all", endpoints.map(({ label }) => label), endpoint))),
    field("Worker", h("select", { value: worker, onchange: (/** @type {any} */ event) => go({ worker: event.currentTarget.value }) }, options("all", workers, worker))),
    field("Level", h("select", { value: level, onchange: (/** @type {any} */ event) => { level = event.currentTarget.value; redraw(); } }, LEVELS.map((each) => h("option", { value: each }, each.toLowerCase())))),
    field("Request", h("input", { value: request, size: "16", placeholder: "id", onchange: (/** @type {any} */ event) => go({ request: event.currentTarget.value.trim() }) })),
    field("Contains", h("input", { type: "search", size: "16", oninput: (/** @type {any} */ event) => { words = event.currentTarget.value; redraw(); } })),
    button(isFollowing ? "Hold" : "Follow", () => {
      isFollowing = !isFollowing;
      if (isFollowing) read();
      else stop();
      redraw();
    }, { "aria-pressed": String(!isFollowing) }),
  );
}
