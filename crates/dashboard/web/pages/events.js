/** What happened to the server: workers, generations, and what operators did. */

import { live } from "../live.js";
import { h } from "../ui/dom.js";
import { nothing, state, table } from "../ui/parts.js";

/** Says what happened. @param {import("../live.js").Event} event @returns {any} */
function sentence(event) {
  const why = event.reason ? `: ${event.reason}` : "";
  switch (event.event) {
    case "ready":
      return "all endpoints serve";
    case "stopping":
      return "the server stops";
    case "worker":
      return [`worker #${event.slot} is `, state(event.state), why];
    case "scaled":
      return `scaled from ${event.before} to ${event.wanted} workers`;
    case "mode":
      return ["is ", state(event.mode)];
    case "generation":
      return [`generation ${event.generation} is `, state(event.state), why];
    case "log_level":
      return `the level of the log is ${event.level}`;
    default: {
      const { id, timestamp, event: kind, endpoint: _, ...more } = event;
      const told = Object.entries(more).map(([name, value]) => `${name} ${JSON.stringify(value)}`);
      return [kind.replaceAll("_", " "), told.length > 0 && `: ${told.join(", ")}`];
    }
  }
}

/** @type {import("../app.js").Page} */
export const events = {
  title: () => "Events",
  view() {
    const rows = live.events.map((event) => [
      h("time", { datetime: event.timestamp, title: event.timestamp }, event.timestamp.slice(0, 19).replace("T", " ")),
      event.endpoint ? h("a", { href: `#/endpoint/${encodeURIComponent(event.endpoint)}` }, event.endpoint) : "server",
      sentence(event),
    ]);
    return [
      h("h1", { tabindex: "-1" }, "Events"),
      h("section.panel", null, rows.length ? table("Events, the newest first", ["Time (UTC)", "Of", "Event"], rows) : nothing("Nothing has happened yet.")),
    ];
  },
};
