/** All endpoints at a glance: what each does, how fast, and why one is slow. */

import { live, loadOf } from "../live.js";
import { sparkline } from "../ui/chart.js";
import { h, redraw } from "../ui/dom.js";
import { bytes, count, duration, percent, rate } from "../ui/format.js";
import { figure, nothing, prose, state } from "../ui/parts.js";

/** The number of endpoints above which they can be filtered. */
const MANY = 8;

let wanted = "";

/** @type {import("../app.js").Page} */
export const overview = {
  title: () => "Overview",
  view() {
    const { status } = live;
    if (!status) return [h("h1", { tabindex: "-1" }, "Endpoints"), skeleton()];
    const shown = status.endpoints.filter(({ label, name }) => `${label} ${name}`.includes(wanted));
    return [
      h("h1", { tabindex: "-1" }, "Endpoints"),
      totals(),
      status.endpoints.length > MANY && filter(shown.length),
      shown.length ? h("ul.endpoints", null, shown.map(row)) : nothing("No endpoint has this in its name."),
    ];
  },
};

/** @param {number} found */
const filter = (found) =>
  h(
    "label.filter",
    null,
    h("span.unseen", null, "Filter the endpoints"),
    h("input", {
      type: "search",
      placeholder: "Filter",
      oninput: (/** @type {any} */ event) => {
        wanted = event.currentTarget.value;
        redraw();
      },
    }),
    h("span.muted", { role: "status" }, `${found} of ${live.status?.endpoints.length}`),
  );

/** @param {import("../live.js").ErrorCounts} errors */
export const failures = (errors) => Object.values(errors).reduce((sum, value) => sum + value, 0);

/** Says which errors there were. @param {import("../live.js").ErrorCounts} errors */
export const kinds = (errors) =>
  Object.entries(errors)
    .filter(([, value]) => value > 0)
    .map(([kind, value]) => `${value} ${kind.replace("_", " ")}`)
    .join(", ");

/** The figures of the whole server. */
function totals() {
  const { load, status } = live;
  const sum = (/** @type {(each: import("../live.js").Load) => number} */ value) =>
    load.reduce((all, each) => all + value(each), 0);
  const failed = sum(({ errors }) => failures(errors));
  const [ready, workers] = [sum((each) => each.workers_ready), sum((each) => each.workers)];
  return h(
    "dl.totals",
    { "aria-label": "The server" },
    figure("Requests/s", rate(sum((each) => each.rate))),
    figure("In flight", count(sum((each) => each.in_flight))),
    figure("Queued", count(sum((each) => each.queued))),
    figure("Errors/min", count(failed), { tone: failed ? "bad" : "" }),
    figure("Workers ready", `${ready} of ${workers}`, { tone: ready < workers ? "warn" : "" }),
    figure("Memory", bytes(sum((each) => each.memory ?? 0)), {
      title: status?.memory && `${bytes(status.memory.held)} of the budget of ${bytes(status.memory.budget)}`,
    }),
    status?.gpus.map((gpu) =>
      figure(
        `GPU ${gpu.index}`,
        [
          `${bytes(gpu.used)} of ${bytes(gpu.total)}`,
          gpu.utilization !== null && h("small", null, ` ${percent(gpu.utilization)} busy`),
        ],
        { title: gpu.uuid },
      ),
    ),
  );
}

/** @param {import("../live.js").Endpoint} endpoint */
function row(endpoint) {
  const { label, name, kind, workers, generations } = endpoint;
  const load = loadOf(label);
  const now = generations.findLast((each) => each.state === "live");
  const spark = live.sparks.get(label) ?? [];
  const gpu = workers.reduce((sum, worker) => sum + (worker.gpu_memory ?? 0), 0);
  const devices = [...new Set(workers.map(({ device }) => device))].join(", ");
  return h(
    "li.endpoint",
    { key: label },
    h(
      "div.who",
      null,
      h("h2", null, h("a", { href: `#/endpoint/${encodeURIComponent(label)}` }, label)),
      h(
        "p.muted",
        null,
        [name !== label && name, kind, devices, now && generations.length > 1 && `generation ${now.generation}`]
          .filter(Boolean)
          .join(" · "),
      ),
    ),
    h("div", null, state(stateOf(endpoint)), tierOf(endpoint)),
    sparkline(spark, `Requests per second of ${label} in the last two minutes`),
    load &&
      h(
        "dl.figures",
        null,
        figure("Req/s", rate(load.rate), { title: `${rate(load.job_rate)} jobs/s with calls of other endpoints` }),
        figure("p50", duration(load.p50)),
        figure("p99", duration(load.p99)),
        figure("In flight", count(load.in_flight)),
        figure("Queued", count(load.queued), { tone: load.queued ? "warn" : "" }),
        figure("Errors/min", count(failures(load.errors)), {
          tone: failures(load.errors) ? "bad" : "",
          title: kinds(load.errors),
        }),
        figure("Workers", kind === "pipeline" ? "–" : `${load.workers_ready}/${load.workers}`, {
          tone: load.workers_ready < load.workers ? "warn" : "",
        }),
        figure("Memory", [bytes(load.memory), gpu > 0 && h("small", null, ` + ${bytes(gpu)} GPU`)]),
      ),
    h(
      "div.notes",
      null,
      reasons(endpoint),
      workers.filter(({ state }) => state !== "ready").map((worker) => progress(label, worker)),
      generations.filter((each) => ["starting", "warming", "canary", "shadow"].includes(each.state)).map((each) =>
        h("p.progress", null, `generation ${each.generation} is ${each.state}`),
      ),
    ),
  );
}

/** Returns the state in a word: an endpoint whose first worker loads the model is not down. @param {import("../live.js").Endpoint} endpoint */
export function stateOf({ label, state, workers }) {
  const word = loadOf(label)?.state ?? state;
  const isStarting = word === "unavailable" && workers.some((worker) => worker.state === "starting");
  return isStarting ? "starting" : word;
}

/** Says what the next worker of an endpoint that sleeps starts from. @param {import("../live.js").Endpoint} endpoint */
export function tierOf(endpoint) {
  const isKept = endpoint.tier === "hibernated" || endpoint.tier === "template";
  return isKept && stateOf(endpoint) === "asleep" && h("small.muted", null, ` ${endpoint.tier}`);
}

/** Says why an endpoint is slow, or not there. @param {import("../live.js").Endpoint} endpoint */
export function reasons(endpoint) {
  const slow = loadOf(endpoint.label)?.slow;
  const { problem } = endpoint;
  return [
    slow && h("p.slow", null, prose(slow)),
    problem && stateOf(endpoint) === "unavailable" && h("p.problem", null, prose(problem)),
  ];
}

/** How far a worker is that loads its model. @param {string} label @param {import("../live.js").Worker} worker */
export function progress(label, { slot, state: word, starting_for, last_line, reason }) {
  const since = starting_for === null ? "" : ` for ${duration(starting_for)}`;
  return h(
    "p.progress",
    null,
    h("b", null, `${label}#${slot}`),
    ` is ${word}${since}`,
    last_line ? [": ", h("samp", null, last_line.text)] : reason ? `: ${reason}` : "",
  );
}

const skeleton = () => h("p.nothing", { role: "status" }, "Asking the server …");
