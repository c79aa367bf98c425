/** The last and the slowest requests, and one of them stage by stage. */

import { get } from "../api.js";
import { h, redraw } from "../ui/dom.js";
import { bytes, clock, duration, plural } from "../ui/format.js";
import { choice, nothing, section, table } from "../ui/parts.js";
import { bar, waterfall } from "../ui/waterfall.js";
import { replay } from "./replay.js";

/** The time between two readings of the list in milliseconds. */
const READ_TIME = 3000;

/** What the lists are of. @type {[string, string][]} */
const LISTS = [["last", "Last"], ["slowest", "Slowest"], ["4xx", "Refused"], ["5xx", "Failed"]];

/**
 * @typedef {{number: number, id: string, endpoint: string, method: string, path: string, status: number,
 *   outcome: string, time: number, duration: number, bytes_in: number | null, bytes_out: number,
 *   generation: number | null, worker: number | null, attempts: number, is_recorded: boolean,
 *   stages: Record<string, number>, trace_id?: string}} Summary
 */

/**
 * Returns a list of requests that is read again while it is shown.
 * @param {{endpoint?: string}} of
 */
export function requestList({ endpoint }) {
  let list = "last";
  /** @type {Summary[] | null} */
  let requests = null;
  let error = "";
  let timer = 0;
  let isShown = false;

  async function read() {
    clearTimeout(timer);
    if (!document.hidden) {
      const query = new URLSearchParams({ limit: endpoint ? "25" : "60" });
      if (endpoint) query.set("endpoint", endpoint);
      if (list === "slowest") query.set("slowest", "true");
      else if (list !== "last") query.set("status", list);
      const asked = list;
      try {
        const told = await get(`requests?${query}`);
        if (asked === list) [requests, error] = [told.requests, ""];
      } catch (/** @type {any} */ failed) {
        error = failed.message;
      }
      redraw();
    }
    if (isShown) timer = setTimeout(read, READ_TIME);
  }

  return {
    enter() {
      isShown = true;
      read();
    },
    leave() {
      isShown = false;
      clearTimeout(timer);
    },
    view() {
      const choose = (/** @type {string} */ value) => {
        [list, requests] = [value, null];
        read();
        redraw();
      };
      return section("Requests", choice("Requests", LISTS, list, choose), content());
    },
  };

  function content() {
    if (error) return h("p.error", { role: "alert" }, error);
    if (!requests) return nothing("Asking the server …");
    if (!requests.length) return nothing(list === "last" ? "No request has ended yet." : "None of the remembered requests is of this kind.");
    const longest = Math.max(...requests.map((each) => each.duration));
    const heads = ["Time", "Request", !endpoint && "Endpoint", "#Status", "#Duration", "Stages"];
    const rows = requests.map((each) => [
      clock(each.time * 1000),
      h("a", { href: `#/requests/${encodeURIComponent(each.id)}` }, h("code", null, short(each.id))),
      !endpoint && each.endpoint,
      status(each),
      duration(each.duration),
      bar(each, longest),
    ]);
    const kept = (/** @type {any[]} */ cells) => cells.filter((_, at) => heads[at] !== false);
    return table("Requests", kept(heads), rows.map(kept));
  }
}

/** @param {string} id */
const short = (id) => (id.length > 14 ? `…${id.slice(-12)}` : id);

/** @param {Summary} request */
const status = ({ status, outcome }) =>
  h("span", { class: status >= 400 ? "failed" : "", title: outcome.replace("_", " ") }, status);

/** The time between two looks for a replay that has just ended in milliseconds, and their number. */
const LOOK_TIME = 150;
const LOOKS = 20;

let all = requestList({});
/** @type {any} */
let details = null;
/** The request that it is a replay of. @type {any} */
let original = null;
/** @type {ReturnType<typeof replay> | null} */
let again = null;
let refusal = "";
/** The number of the request that is shown last. */
let shown = 0;

/** Reads a request, and the one that it is a replay of. @param {string} id @param {string | null} of */
async function read(id, of) {
  const mine = ++shown;
  const path = (/** @type {string} */ each) => `requests/${encodeURIComponent(each)}`;
  try {
    let told = null;
    for (let look = 0; !told; look++) {
      // The server remembers a request a moment after its response.
      told = await get(path(id)).catch((error) => {
        if (!of || error.status !== 404 || look === LOOKS) throw error;
      });
      if (!told) await new Promise((done) => setTimeout(done, LOOK_TIME));
      if (mine !== shown) return;
    }
    const before = of && (await get(path(of)).catch(() => null));
    if (mine !== shown) return;
    [details, original, again] = [told, before, replay(told)];
  } catch (/** @type {any} */ error) {
    if (mine === shown) refusal = error.message;
  }
  redraw();
}

/** @type {import("../app.js").Page} */
export const requests = {
  title: ([id]) => (id ? "Request" : "Requests"),
  enter([id], query) {
    [details, original, again, refusal] = [null, null, null, ""];
    if (id === undefined) all.enter();
    else read(id, query.get("original"));
  },
  leave() {
    shown++;
    again?.stop();
    all.leave();
  },
  view([id]) {
    if (id === undefined) return [h("h1", { tabindex: "-1" }, "Requests"), all.view()];
    return [h("h1", { tabindex: "-1" }, "Request ", details && h("code", null, details.id)), details ? one(details) : nothing(refusal || "Asking the server …")];
  },
};

/** @param {any} request */
function one(request) {
  const about = [
    ["Endpoint", h("a", { href: `#/endpoint/${encodeURIComponent(request.endpoint)}` }, request.endpoint)],
    ["Request", h("code", null, `${request.method} ${request.path}`)],
    ["Status", [status(request), ` ${request.outcome.replace("_", " ")}`]],
    ["Arrived", clock(request.time * 1000)],
    ["Duration", duration(request.duration)],
    ["Bytes", `${bytes(request.bytes_in)} in, ${bytes(request.bytes_out)} out`],
    ["Worker", request.worker === null ? "–" : `#${request.worker}, generation ${request.generation}`],
    ["Attempts", request.attempts],
    request.trace_id && ["Trace", h("code", null, request.trace_id)],
  ];
  return [
    original && beside(original, request),
    h("dl.about", null, about.filter(Boolean).map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value)))),
    section(
      "Stages",
      h("span.tools", null, h("a", { href: `#/try/${encodeURIComponent(request.endpoint)}` }, "Try the endpoint"), h("a", { href: `#/logs?request=${encodeURIComponent(request.id)}` }, "Logs of this request")),
      request.waterfall.length
        ? waterfall(request)
        : nothing("Only its duration was recorded: above 1,000 requests a second an endpoint does not record the stages of all."),
      request.left_out > 0 && nothing(`${plural(request.left_out, "stage")} more are not shown.`),
    ),
    again?.view(),
  ];
}

/** A replay beside the request that was sent again. @param {any} before @param {any} after */
function beside(before, after) {
  const names = Object.keys(after.stages).filter((name) => before.stages[name] > 0 || after.stages[name] > 0);
  const times = [["duration", before.duration, after.duration], ...names.map((name) => [name.replace("_", " "), before.stages[name], after.stages[name]])];
  const more = (/** @type {number} */ one, /** @type {number} */ other) => `${other < one ? "−" : "+"}${duration(Math.abs(other - one))}`;
  const known = (/** @type {number | null} */ value) => value ?? "–";
  const rows = [
    ["status", status(before), status(after), ""],
    ...times.map(([name, one, other]) => [name, duration(one), duration(other), more(one, other)]),
    ["bytes out", bytes(before.bytes_out), bytes(after.bytes_out), ""],
    ["slot", known(before.worker), known(after.worker), ""],
    ["generation", known(before.generation), known(after.generation), ""],
  ];
  const link = h("a", { href: `#/requests/${encodeURIComponent(before.id)}` }, "The original ", h("code", null, short(before.id)));
  return section("Beside the original", link, table("The replay beside the original", ["Part", "#Original", "#Replay", "#Difference"], rows));
}
