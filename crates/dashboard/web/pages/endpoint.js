/** One endpoint: its workers, its last hours, its generations, and what an operator can do with it. */

import * as actions from "../actions.js";
import { endpointPath, get } from "../api.js";
import { endpoint as find, live, loadOf } from "../live.js";
import { bars, chart } from "../ui/chart.js";
import { h, redraw } from "../ui/dom.js";
import { bytes, clock, count, duration, long, plural, rate } from "../ui/format.js";
import { button, choice, figure, nothing, section, state, table } from "../ui/parts.js";
import { failures, kinds, progress, reasons, stateOf, tierOf } from "./overview.js";
import { requestList } from "./requests.js";

/** The ranges of the charts in seconds. @type {[string, string][]} */
const RANGES = [["300", "5 min"], ["3600", "1 h"], ["21600", "6 h"], ["86400", "24 h"]];

/** The time between two readings of the history in milliseconds: as new points come. */
const READ_TIME = 5000;

let label = "";
let range = "300";
/** @type {any[]} */
let points = [];
/** The batches, once they are known. @type {any} */
let counts = null;
/** The generations that it can return to. @type {number[]} */
let earlier = [];
let timer = 0;
let list = requestList({});

async function read() {
  clearTimeout(timer);
  const [asked, seconds] = [label, range];
  if (!document.hidden) {
    const query = new URLSearchParams({ endpoint: asked, seconds });
    const paths = [`history?${query}`, endpointPath(asked, "/batches"), endpointPath(asked, "/generations")];
    const [told, batches, generations] = await Promise.all(paths.map((path) => get(path).catch(() => null)));
    if (asked !== label || seconds !== range) return;
    if (told) points = told.points;
    counts = batches;
    earlier = generations?.earlier ?? [];
    redraw();
  }
  timer = setTimeout(read, Math.max(READ_TIME, Number(seconds) * 10));
}

/** @type {import("../app.js").Page} */
export const endpoint = {
  title: ([name]) => name,
  enter([name]) {
    [label, points, counts, earlier] = [name, [], null, []];
    list = requestList({ endpoint: name });
    list.enter();
    read();
  },
  leave() {
    clearTimeout(timer);
    label = "";
    list.leave();
  },
  view([name]) {
    const shown = find(name);
    if (!shown) {
      const reason = live.status ? `There is no endpoint ${name}.` : "Asking the server …";
      return [h("h1", { tabindex: "-1" }, name), nothing(reason)];
    }
    return [
      head(shown),
      h("div.notes", null, reasons(shown), shown.workers.filter((it) => it.state !== "ready").map((it) => progress(name, it))),
      now(shown),
      history(),
      shown.kind !== "pipeline" && workers(shown),
      batches(name),
      shown.generations.length > 0 && generations(shown),
      list.view(),
    ];
  },
};

/** @param {import("../live.js").Endpoint} shown */
function head(shown) {
  const { label: name, path, kind, aliases } = shown;
  const about = [shown.name !== name && shown.name, path !== name && path, kind, ...aliases.map((each) => `also ${each}`)];
  const word = stateOf(shown);
  const guarded = actions.guarded();
  return h(
    "header.head",
    null,
    h(
      "div",
      null,
      h("h1", { tabindex: "-1" }, name, " ", state(word), tierOf(shown)),
      h("p.muted", null, about.filter(Boolean).join(" · ")),
    ),
    h(
      "div.tools",
      null,
      h("a.button", { href: `#/try/${encodeURIComponent(name)}` }, "Playground"),
      h("a.button", { href: `#/logs?endpoint=${encodeURIComponent(name)}` }, "Logs"),
      kind !== "pipeline" && [
        button("Scale …", () => actions.scale(shown), guarded),
        button("Reload …", () => actions.reload(shown), guarded),
        word === "paused" || word === "draining"
          ? button("Resume …", () => actions.resume(name), { ...guarded, class: "main", key: "resume" })
          : [
              button("Pause …", () => actions.pause(name), { ...guarded, key: "pause" }),
              button("Drain …", () => actions.drain(name), { ...guarded, key: "drain" }),
            ],
      ],
    ),
  );
}

/** @param {import("../live.js").Endpoint} shown */
function now({ label: name, wanted, min_workers: min, max_workers: max, requests, kind, tier, residency: memory }) {
  const load = loadOf(name);
  if (!load) return null;
  const failed = failures(load.errors);
  const limits = max === null ? "" : ` (${min} to ${max})`;
  return h(
    "dl.totals",
    { "aria-label": "Now" },
    figure("Requests/s", rate(load.rate)),
    figure("Jobs/s", rate(load.job_rate), { title: "With calls of other endpoints" }),
    figure("p50", duration(load.p50), { title: "Of the last minute" }),
    figure("p99", duration(load.p99), { title: "Of the last minute" }),
    figure("In flight", count(load.in_flight)),
    figure("Queued", count(load.queued), { tone: load.queued ? "warn" : "" }),
    figure("Errors/min", count(failed), { tone: failed ? "bad" : "", title: kinds(load.errors) }),
    kind !== "pipeline" && figure("Workers ready", [`${load.workers_ready} of ${wanted}`, limits && h("small", null, limits)]),
    figure("Requests", count(requests), { title: "Since the start" }),
    memory && memory.is_measured && figure("Needs", needed(memory), { title: "Memory that the next worker is expected to need" }),
    memory && memory.is_measured && figure(tier === "hibernated" ? "Wakes in" : "Loads in", duration(memory.load_seconds)),
    memory && memory.evictions > 0 && figure("Evictions", count(memory.evictions), { title: `The last one: ${memory.last_eviction}` }),
  );
}

/** @param {import("../live.js").Residency} memory */
function needed({ predicted, predicted_gpu: gpu }) {
  return [bytes(predicted), gpu > 0 && h("small", null, ` + ${bytes(gpu)} GPU`)];
}

function history() {
  const choose = (/** @type {string} */ seconds) => {
    [range, points] = [seconds, []];
    read();
    redraw();
  };
  const times = points.map(({ time }) => time);
  const values = (/** @type {(point: any) => number | null} */ of) => points.map(of);
  const perSecond = (/** @type {number | null} */ value) => (value === null ? "–" : `${rate(value)}/s`);
  const whole = (/** @type {number | null} */ value) => (value === null ? "–" : count(Math.round(value * 10) / 10));
  return section(
    "History",
    choice("Range", RANGES, range, choose),
    h(
      "div.charts",
      null,
      chart(
        "Rate",
        times,
        [
          { name: "requests", tone: "teal", values: values((point) => point.rate) },
          { name: "errors", tone: "red", values: values((point) => failures(point.errors) / point.seconds) },
        ],
        perSecond,
      ),
      chart(
        "Latency",
        times,
        [
          { name: "p50", tone: "blue", values: values((point) => point.p50) },
          { name: "p99", tone: "violet", values: values((point) => point.p99) },
        ],
        duration,
      ),
      chart(
        "Jobs",
        times,
        [
          { name: "queued", tone: "amber", values: values((point) => point.queued) },
          { name: "in flight", tone: "blue", values: values((point) => point.in_flight) },
        ],
        whole,
      ),
    ),
  );
}

/** @param {import("../live.js").Endpoint} shown */
function workers({ label: name, workers }) {
  const hasGpu = workers.some(({ gpu_memory }) => gpu_memory !== null);
  const heads = ["Worker", "State", "Device", "#In flight", "#Memory", hasGpu && "#GPU memory", "#Ready for", "#Restarts", "Process", ""];
  const rows = workers.map((worker) => [
    `#${worker.slot}`,
    [state(worker.state), worker.reason && h("small", null, ` ${worker.reason}`)],
    worker.device,
    worker.in_flight,
    bytes(worker.memory),
    hasGpu && bytes(worker.gpu_memory),
    worker.ready_for === null ? "–" : long(worker.ready_for),
    worker.restarts,
    worker.pid ?? "thread",
    h(
      "span.tools",
      null,
      h("a", { href: `#/logs?worker=${encodeURIComponent(`${name}#${worker.slot}`)}`, "aria-label": `Logs of worker ${worker.slot}` }, "Logs"),
      worker.pid !== null &&
        button("Stack", () => actions.stack(name, worker.slot), { class: "link", "aria-label": `Stack of worker ${worker.slot}` }),
    ),
  ]);
  const kept = (/** @type {any[]} */ cells) => cells.filter((_, at) => heads[at] !== false);
  return section(
    "Workers",
    null,
    workers.length ? table(`Workers of ${name}`, kept(heads), rows.map(kept)) : nothing("No worker runs."),
    workers.map(({ slot }) => stack(`${name}#${slot}`)),
  );
}

/** @param {string} worker */
function stack(worker) {
  const text = actions.stacks.get(worker);
  const hide = () => {
    actions.stacks.delete(worker);
    redraw();
  };
  return (
    text !== undefined &&
    h(
      "div",
      { key: worker },
      h("div.tools", null, h("h3", null, `Stack of ${worker}`), button("Hide", hide, { class: "link" })),
      h("pre", { tabindex: "0", role: "region", "aria-label": `Stack of ${worker}` }, text),
    )
  );
}

/** How large batches are, where any has more than one job. @param {string} name */
function batches(name) {
  if (!counts) return null;
  const { sizes, seconds, costs } = counts;
  const all = sizes.counts.reduce((/** @type {number} */ sum, /** @type {number} */ each) => sum + each, 0);
  if (all === 0 || sizes.sum === all) return null;
  const whole = (/** @type {number} */ value) => String(value);
  const part = (/** @type {string} */ title, /** @type {any} */ buckets, /** @type {(value: number) => string} */ format) =>
    h("div", null, h("h3", null, title), bars(`${title}, ${name}`, ranges(buckets, format)));
  return section(
    "Batches",
    h("span.muted", null, `${count(all)} since the start, ${(sizes.sum / all).toFixed(1)} jobs on average`),
    h(
      "div.charts",
      null,
      part("Jobs in a batch", sizes, whole),
      part("Time of a batch", seconds, duration),
      costs && part("Cost of a batch", costs, whole),
    ),
  );
}

/**
 * Returns the buckets of a histogram that have a value, and those between them.
 * @param {{bounds: number[], counts: number[]}} buckets
 * @param {(value: number) => string} format
 */
function ranges({ bounds, counts }, format) {
  const all = counts.map((number, at) => ({
    name: at < bounds.length ? `≤ ${format(bounds[at])}` : `> ${format(bounds[at - 1])}`,
    count: number,
  }));
  const used = (/** @type {{count: number}} */ each) => each.count > 0;
  return all.slice(all.findIndex(used), all.findLastIndex(used) + 1);
}

/** @param {import("../live.js").Endpoint} shown */
function generations({ label: name, generations }) {
  const guarded = actions.guarded();
  const rows = generations.toReversed().map(({ generation, state: word, since, reason, answers }) => [
    generation,
    state(word),
    clock(since),
    reason ?? "",
    answers ? `${answers.differed} of ${answers.compared}` : "",
    h(
      "span.tools",
      null,
      ["canary", "shadow"].includes(word) && [
        button("Promote …", () => actions.promote(name, generation), { ...guarded, class: "link" }),
        button("Roll back …", () => actions.rollback(name), { ...guarded, class: "link" }),
      ],
      earlier.includes(generation) &&
        button("Return to it …", () => actions.rollback(name, generation), { ...guarded, class: "link", "aria-label": `Return to generation ${generation}` }),
    ),
  ]);
  return section("Generations", null, table(`Generations of ${name}, ${plural(rows.length, "row")}`, ["Number", "State", "Since", "Reason", "Differing answers", ""], rows));
}
