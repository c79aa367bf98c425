/** Charts: lines over time and sparklines, as SVG. */

import { h, redraw } from "./dom.js";
import { clock } from "./format.js";

const [WIDTH, HEIGHT] = [600, 120];

/** Returns the path of a line through values; gaps are where nothing is known. @param {(number | null)[]} values @param {number} most @param {number} width @param {number} height */
function line(values, most, width, height) {
  let [path, isDown] = ["", false];
  const step = width / Math.max(values.length - 1, 1);
  values.forEach((value, index) => {
    if (value === null) return (isDown = false);
    const y = height - (value / most) * (height - 4) - 2;
    path += `${isDown ? "L" : "M"}${(index * step).toFixed(1)} ${y.toFixed(1)}`;
    return (isDown = true);
  });
  return path;
}

/** A line without axes. @param {(number | null)[]} values @param {string} label */
export function sparkline(values, label) {
  const most = Math.max(...values.map((value) => value ?? 0), 1);
  const path = line(values, most, 120, 32);
  const first = Math.max(values.findIndex((value) => value !== null), 0);
  const from = ((120 / Math.max(values.length - 1, 1)) * first).toFixed(1);
  return h(
    "svg.spark",
    { viewBox: "0 0 120 32", preserveAspectRatio: "none", role: "img", "aria-label": label },
    path && h("path.under", { d: `${path}L120 32L${from} 32Z` }),
    h("path", { d: path, "vector-effect": "non-scaling-stroke" }),
  );
}

/** Returns a round number that is not less. @param {number} value */
function round(value) {
  if (value <= 0) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 2.5, 5, 10].find((each) => each * unit >= value) ?? 10;
  return step * unit;
}

/** The point that the pointer or the keyboard is at, by chart. @type {Map<string, number>} */
const at = new Map();

/**
 * Lines over time with their names, which show the values at the pointer.
 * @param {string} title
 * @param {number[]} times In seconds since 1970.
 * @param {{name: string, tone: string, values: (number | null)[]}[]} series
 * @param {(value: number | null) => string} format
 */
export function chart(title, times, series, format) {
  const most = round(Math.max(0, ...series.flatMap(({ values }) => values.map((value) => value ?? 0))));
  const last = times.length - 1;
  const chosen = Math.min(at.get(title) ?? last, last);
  const move = (/** @type {number | undefined} */ index) => {
    if (index === undefined) at.delete(title);
    else at.set(title, Math.max(0, Math.min(last, index)));
    redraw();
  };
  const keys = /** @type {Record<string, number>} */ ({ ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last });
  const value = (/** @type {(number | null)[]} */ values) => (last < 0 ? "–" : format(values[chosen] ?? null));
  const legend = series.map(({ name, tone, values }) =>
    h(`span.key.${tone}`, null, h("i", { "aria-hidden": "true" }), `${name} `, h("b", null, value(values))),
  );
  const x = last > 0 ? (chosen / last) * WIDTH : WIDTH;
  return h(
    "figure.chart",
    { key: title },
    h(
      "figcaption",
      null,
      h("h3", null, title),
      h("p", { class: "legend" }, legend),
      h("time", null, last < 0 || !at.has(title) ? "" : clock(times[chosen] * 1000)),
    ),
    h(
      "div.plot",
      {
        tabindex: "0",
        role: "img",
        "aria-label": `${title}: ${series.map(({ name, values }) => `${name} ${value(values)}`).join(", ")}`,
        onpointermove: (/** @type {PointerEvent} */ event) => {
          const box = /** @type {any} */ (event.currentTarget).firstChild.getBoundingClientRect();
          move(Math.round(((event.clientX - box.left) / box.width) * last));
        },
        onpointerleave: () => move(undefined),
        onblur: () => move(undefined),
        onkeydown: (/** @type {KeyboardEvent} */ event) => {
          if (!(event.key in keys)) return;
          event.preventDefault();
          move(chosen + keys[event.key]);
        },
      },
      h(
        "svg",
        { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
        [0.5, 1].map((share) => {
          const y = HEIGHT - share * (HEIGHT - 4) - 2;
          return h("line.grid", { x1: 0, x2: WIDTH, y1: y, y2: y, "vector-effect": "non-scaling-stroke" });
        }),
        series.map(({ tone, values }) =>
          h(`path.${tone}`, { d: line(values, most, WIDTH, HEIGHT), "vector-effect": "non-scaling-stroke" }),
        ),
        at.has(title) &&
          h("line.cursor", { x1: x, x2: x, y1: 0, y2: HEIGHT, "vector-effect": "non-scaling-stroke" }),
      ),
      h("span.most", { "aria-hidden": "true" }, format(most)),
      h("span.half", { "aria-hidden": "true" }, format(most / 2)),
    ),
    h(
      "div.times",
      { "aria-hidden": "true" },
      last > 0 && [h("span", null, clock(times[0] * 1000)), h("span", null, clock(times[last] * 1000))],
    ),
  );
}

/**
 * Bars of how often values occurred.
 * @param {string} title
 * @param {{name: string, count: number}[]} bars
 */
export function bars(title, bars) {
  const most = Math.max(1, ...bars.map(({ count }) => count));
  const all = Math.max(1, bars.reduce((sum, { count }) => sum + count, 0));
  return h(
    "ol.bars",
    { "aria-label": title },
    bars.map(({ name, count }) =>
      h(
        "li",
        { title: `${count}` },
        h("span", null, name),
        h("span.bar", null, h("i", { style: { width: `${(count / most) * 100}%` } })),
        h("span.figure", null, `${Math.round((count / all) * 100)} %`),
      ),
    ),
  );
}
