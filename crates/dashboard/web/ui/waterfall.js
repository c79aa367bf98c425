/** The stages of a request, as bars on its time. */

import { h } from "./dom.js";
import { duration, plural } from "./format.js";

/** The stages of a summary in their order, with the colours of their bars. @type {[string, string][]} */
const PARTS = [["edge", "grey"], ["queue", "amber"], ["worker", "teal"], ["response", "violet"]];

/** @type {Record<string, string>} */
const TONES = {
  edge: "grey",
  queue: "amber",
  retry: "red",
  cold_start: "red",
  worker: "teal",
  decode: "blue",
  predict: "teal",
  encode: "blue",
  step: "grey",
  response: "violet",
};

/** The share of each stage in a request, in a bar as long as it took. @param {any} request @param {number} longest */
export function bar({ duration: whole, stages, is_recorded }, longest) {
  const width = (/** @type {number} */ seconds) => `${(100 * seconds) / Math.max(longest, 1e-9)}%`;
  const parts = is_recorded ? PARTS.filter(([name]) => stages[name] > 0) : [];
  const known = parts.reduce((sum, [name]) => sum + stages[name], 0);
  const said = parts.map(([name]) => `${name} ${duration(stages[name])}`).join(", ");
  return h(
    "span.bar.parts",
    { role: "img", "aria-label": said || `${duration(whole)} in all`, title: said },
    parts.map(([name, tone]) => h(`i.${tone}`, { key: name, style: { width: width(stages[name]) } })),
    h("i.grey", { key: "rest", style: { width: width(Math.max(whole - known, 0)) } }),
  );
}

/** All stages, each on a line. @param {any} request */
export function waterfall({ waterfall: stages, duration: whole, endpoint }) {
  const end = Math.max(whole, ...stages.map((/** @type {any} */ each) => each.start + each.duration), 1e-9);
  const depth = (/** @type {any} */ stage) => {
    let [level, at] = [0, stage.parent];
    while (at !== null && at !== undefined) [level, at] = [level + 1, stages[at].parent];
    return level;
  };
  const share = (/** @type {number} */ seconds) => `${(100 * seconds) / end}%`;
  return h(
    "div",
    null,
    h(
      "ol.waterfall",
      { "aria-label": `Stages of the request, which took ${duration(whole)}` },
      stages.map((/** @type {any} */ stage) =>
        h(
          "li",
          null,
          h("span.stage", { style: { "padding-left": `${depth(stage) * 14}px` } }, name(stage, endpoint)),
          h(
            "span.track",
            { "aria-hidden": "true" },
            h(`i.${stage.failed ? "red" : (TONES[stage.kind] ?? "grey")}`, {
              // The shortest bar is seen at the end, too.
              style: { "margin-left": `min(${share(stage.start)}, calc(100% - 2px))`, width: share(stage.duration) },
            }),
          ),
          h("span.figure", null, duration(stage.duration), h("span.unseen", null, `, begins after ${duration(stage.start)}`)),
        ),
      ),
    ),
    h(
      "div.scale",
      { "aria-hidden": "true" },
      [0, 0.25, 0.5, 0.75, 1].map((part) => h("span", null, part === 0 ? "0" : duration(part * end))),
    ),
  );
}

/** @param {any} stage @param {string} endpoint */
function name({ kind, endpoint: callee, step, worker, generation, batch, failed }, endpoint) {
  const more = [
    step,
    callee && callee !== endpoint && callee,
    kind === "worker" && worker !== undefined && `#${worker}, generation ${generation}`,
    failed && `failed with ${failed}`,
  ].filter(Boolean);
  return [
    h("b", null, kind.replace("_", " ")),
    more.length > 0 && ` ${more.join(" ")}`,
    batch &&
      h("small", null, ` in a batch of ${batch.size}`, batch.mates.length > 0 && ` with ${plural(batch.mates.length, "other")}: ${batch.mates.slice(0, 3).join(", ")}`),
  ];
}
