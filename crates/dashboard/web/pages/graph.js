/** Which endpoints call which: hooks and the steps of pipelines, with their rates. */

import { get } from "../api.js";
import { live, loadOf } from "../live.js";
import { h, redraw } from "../ui/dom.js";
import { duration, rate } from "../ui/format.js";
import { nothing, section, table } from "../ui/parts.js";
import { stateOf } from "./overview.js";

/** The time between two readings in milliseconds. */
const READ_TIME = 3000;

const [NODE_WIDTH, NODE_HEIGHT, GAP_X, GAP_Y] = [216, 58, 116, 26];

/**
 * @typedef {{id: string, name: string, path: string, kind: string}} Node
 * @typedef {{from: string, to: string, kind: string, steps: string[], rate: number, errors: number,
 *   p50: number | null, p99: number | null}} Edge
 */

/** @type {{nodes: Node[], edges: Edge[]} | null} */
let known = null;
let error = "";
let timer = 0;

async function read() {
  clearTimeout(timer);
  if (!document.hidden) {
    try {
      [known, error] = [await get("graph"), ""];
    } catch (/** @type {any} */ failed) {
      error = failed.message;
    }
    redraw();
  }
  timer = setTimeout(read, READ_TIME);
}

/** @type {import("../app.js").Page} */
export const graph = {
  title: () => "Graph",
  enter: () => void read(),
  leave: () => clearTimeout(timer),
  view() {
    return [h("h1", { tabindex: "-1" }, "Calls between endpoints"), content()];
  },
};

function content() {
  if (error) return h("p.error", { role: "alert" }, error);
  if (!known) return nothing("Asking the server …");
  const { edges } = known;
  if (!edges.length) return nothing("No endpoint calls another, and there is no pipeline.");
  const joined = [...new Set(edges.flatMap(({ from, to }) => [from, to]))];
  return [
    h("section.panel", null, drawing(joined, edges)),
    section(
      "Calls",
      h("span.muted", null, "of the last minute"),
      table(
        "Calls of the last minute",
        ["Caller", "Endpoint called", "Kind", "#Rate", "#Errors", "#p50", "#p99"],
        edges.map((edge) => [
          link(edge.from),
          link(edge.to),
          [edge.kind, edge.steps.length > 0 && h("small", null, ` ${edge.steps.join(", ")}`)],
          `${rate(edge.rate)}/s`,
          edge.errors ? h("span.failed", null, edge.errors) : 0,
          duration(edge.p50),
          duration(edge.p99),
        ]),
      ),
    ),
  ];
}

/** @param {string} label */
const link = (label) => h("a", { href: `#/endpoint/${encodeURIComponent(label)}` }, label);

/**
 * Returns the column of each endpoint: behind all that call it, as far as there is no circle.
 * @param {string[]} labels
 * @param {Edge[]} edges
 */
function columns(labels, edges) {
  const column = new Map(labels.map((label) => [label, 0]));
  // As many rounds as there are endpoints: a circle ends there.
  for (let round = 0; round < labels.length; round++)
    for (const { from, to } of edges) {
      const behind = (column.get(from) ?? 0) + 1;
      if (from !== to && behind < labels.length && (column.get(to) ?? 0) < behind) column.set(to, behind);
    }
  return column;
}

/** The drawing: callers on the left. The table says the same. @param {string[]} labels @param {Edge[]} edges */
function drawing(labels, edges) {
  const column = columns(labels, edges);
  /** @type {Map<string, {x: number, y: number}>} */
  const places = new Map();
  const used = [...new Set(column.values())].sort((a, b) => a - b);
  let [width, height] = [0, 0];
  used.forEach((value, x) => {
    labels
      .filter((label) => column.get(label) === value)
      .forEach((label, y) => {
        const place = { x: x * (NODE_WIDTH + GAP_X) + 2, y: y * (NODE_HEIGHT + GAP_Y) + 4 };
        places.set(label, place);
        width = Math.max(width, place.x + NODE_WIDTH + 2);
        height = Math.max(height, place.y + NODE_HEIGHT + 4);
      });
  });
  height += 16;
  const most = Math.max(1, ...edges.map((edge) => edge.rate));
  // Edges that join the same two endpoints have one line.
  const pairs = new Map(edges.map((edge) => [`${edge.from}\n${edge.to}`, edge]));
  return h(
    "div.scrolls",
    { tabindex: "0", role: "region", "aria-label": "Drawing of the calls; the table below says the same" },
    h(
      "svg.graph",
      { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
      [...pairs.values()].map((edge) => arrow(edge, places, most)),
      labels.map((label) => node(label, places.get(label) ?? { x: 0, y: 0 })),
    ),
  );
}

/** @param {Edge} edge @param {Map<string, {x: number, y: number}>} places @param {number} most */
function arrow({ from, to, rate: calls, errors, p50 }, places, most) {
  const [begin, end] = [places.get(from), places.get(to)];
  if (!begin || !end) return null;
  const [x1, y1, x2, y2] = [begin.x + NODE_WIDTH, begin.y + NODE_HEIGHT / 2, end.x, end.y + NODE_HEIGHT / 2];
  const bend = Math.max((x2 - x1) / 2, 40);
  // What passes other endpoints of its row goes below them.
  const below = y1 === y2 && x2 - x1 > GAP_X ? NODE_HEIGHT * 0.9 : 0;
  const [x, y] = below
    ? [(x1 + x2) / 2, y2 + below]
    : [x2 - GAP_X / 2, y2 + (y1 === y2 ? -6 : y1 < y2 ? -8 : 16)];
  return h(
    "g.edge",
    { key: `${from}\n${to}`, class: errors ? "bad" : calls ? "" : "idle" },
    h("path", { d: `M${x1} ${y1}C${x1 + bend} ${y1 + below} ${x2 - bend} ${y2 + below} ${x2 - 7} ${y2}`, "stroke-width": (1 + (3 * calls) / most).toFixed(1) }),
    h("path.head", { d: `M${x2 - 8} ${y2 - 5}L${x2 - 1} ${y2}L${x2 - 8} ${y2 + 5}Z` }),
    h("text", { x, y, "text-anchor": "middle" }, calls ? `${rate(calls)}/s ${p50 === null ? "" : duration(p50)}` : "idle"),
  );
}

/** @param {string} label @param {{x: number, y: number}} place */
function node(label, { x, y }) {
  const endpoint = live.status?.endpoints.find((each) => each.label === label);
  const load = loadOf(label);
  const short = label.length > 24 ? `…${label.slice(-23)}` : label;
  const about = [endpoint?.kind, endpoint && stateOf(endpoint) !== "ready" && stateOf(endpoint), load && `${rate(load.job_rate)}/s`, load?.queued && `${load.queued} queued`];
  return h(
    "g.node",
    { key: label },
    h("rect", { x, y, width: NODE_WIDTH, height: NODE_HEIGHT, rx: 9, class: endpoint ? stateOf(endpoint) : "" }),
    h("text.name", { x: x + 13, y: y + 24 }, short),
    h("text", { x: x + 13, y: y + 43 }, about.filter(Boolean).join(" · ")),
  );
}
