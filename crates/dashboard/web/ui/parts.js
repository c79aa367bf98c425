/** The small parts of which pages are made. */

import { h } from "./dom.js";

/** The classes of states: what is good, what changes, what an operator holds, what is wrong. */
const TONES = /** @type {Record<string, string>} */ ({
  ready: "good",
  live: "good",
  serving: "good",
  starting: "busy",
  warming: "busy",
  canary: "busy",
  shadow: "busy",
  draining: "held",
  paused: "held",
  stopping: "held",
  unavailable: "bad",
  stopped: "held",
  failed: "bad",
  error: "bad",
});

/** A state in a word with a mark. @param {string} word */
export const state = (word) =>
  h(`span.state.${TONES[word] ?? "idle"}`, null, h("i", { "aria-hidden": "true" }), word);

/** A sentence of the server, whose names are in backticks. @param {string} sentence */
export const prose = (sentence) =>
  sentence.split("`").map((part, index) => (index % 2 ? h("code", null, part) : part));

/** A figure with its name. @param {string} name @param {any} value @param {{tone?: string, title?: string}} [more] */
export const figure = (name, value, { tone = "", title } = {}) =>
  h("div.figure", { class: tone, title }, h("dt", null, name), h("dd", null, value));

/** A section with a heading. @param {string} title @param {any} tools @param {...any} content */
export const section = (title, tools, ...content) =>
  h("section.panel", null, h("header", null, h("h2", null, title), tools), ...content);

/** What a list without items shows. @param {...any} content */
export const nothing = (...content) => h("p.nothing", null, ...content);

/** A button. @param {any} label @param {() => any} onclick @param {Record<string, any>} [more] */
export const button = (label, onclick, more = {}) =>
  h("button", { type: "button", onclick, ...more }, label);

/**
 * A table.
 * @param {string} caption For those who do not see it.
 * @param {any[]} heads Names, those of figures with `#` before them.
 * @param {any[][]} rows
 */
export function table(caption, heads, rows) {
  const isFigure = heads.map((head) => typeof head === "string" && head.startsWith("#"));
  const head = (/** @type {any} */ name, /** @type {number} */ at) =>
    h("th", { scope: "col", class: isFigure[at] ? "figure" : "" }, isFigure[at] ? name.slice(1) : name || h("span.unseen", null, "Actions"));
  const cell = (/** @type {any} */ value, /** @type {number} */ at) =>
    h("td", { class: isFigure[at] ? "figure" : "", "data-head": String(heads[at]).replace("#", "") }, value);
  return h(
    "div.scrolls",
    { tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      null,
      h("caption.unseen", null, caption),
      h("thead", null, h("tr", null, heads.map(head))),
      h("tbody", null, rows.map((row) => h("tr", null, row.map(cell)))),
    ),
  );
}

/**
 * A choice of one of a few, as a row of buttons.
 * @param {string} name
 * @param {[string, string][]} options Values and their names.
 * @param {string} chosen
 * @param {(value: string) => void} choose
 */
export const choice = (name, options, chosen, choose) =>
  h(
    "div.choice",
    { role: "group", "aria-label": name },
    options.map(([value, label]) =>
      h(
        "button",
        { type: "button", "aria-pressed": String(value === chosen), onclick: () => choose(value) },
        label,
      ),
    ),
  );

/** A field with its label. @param {string} label @param {any} input @param {string} [hint] */
export const field = (label, input, hint) =>
  h("label.field", null, h("span", null, label), input, hint && h("small", null, hint));

/** Copies a text. @param {string} text */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Without TLS a page of another machine has no clipboard.
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
