/** The page: the way to its parts, and the frame around them. */

import { guarded, reloadProgram, setLogLevel, stopServer } from "./actions.js";
import { get, isShared } from "./api.js";
import { close, live, open, retry } from "./live.js";
import { config } from "./pages/config.js";
import { endpoint } from "./pages/endpoint.js";
import { events } from "./pages/events.js";
import { graph } from "./pages/graph.js";
import { logs } from "./pages/logs.js";
import { overview } from "./pages/overview.js";
import { playground } from "./pages/playground.js";
import { requests } from "./pages/requests.js";
import { h, drawWith, redraw, render } from "./ui/dom.js";
import { dialogs } from "./ui/dialog.js";
import { long } from "./ui/format.js";
import { button } from "./ui/parts.js";

/**
 * A part of the page. `enter` is called when the address leads to it, `leave` when the address leads away.
 * @typedef {{title: (parts: string[]) => string, enter?: (parts: string[], query: URLSearchParams) => void,
 *   leave?: () => void, view: (parts: string[]) => any}} Page
 */

/** The parts by the first word of the address, and those that the navigation shows. @type {Record<string, Page>} */
const PAGES = { "": overview, endpoint, try: playground, requests, graph, logs, events, config };
const NAVIGATION = [["", "Overview"], ["requests", "Requests"], ["graph", "Graph"], ["logs", "Logs"], ["events", "Events"], ["config", "Configuration"]];

/** @type {{page: Page, parts: string[], name: string}} */
let current = { page: overview, parts: [], name: "" };
let isEntered = false;

/** Follows the address after `#`. */
function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...parts] = path.split("/").map(decodeURIComponent);
  const page = PAGES[name] ?? overview;
  if (isEntered) current.page.leave?.();
  current = { page, parts, name: PAGES[name] ? name : "" };
  isEntered = live.session !== null;
  if (isEntered) page.enter?.(parts, new URLSearchParams(query));
  document.title = `${page.title(parts)} · litplex`;
  redraw();
}

addEventListener("hashchange", () => {
  route();
  // Readers of the screen hear where they are.
  requestAnimationFrame(() => document.querySelector("h1")?.focus());
});

function view() {
  // The page is entered once its key is known.
  if (isEntered !== (live.session !== null)) route();
  render(document.querySelector("#app"), live.session ? frame() : live.isKnown ? signIn() : loading());
}

const loading = () => [connection(), h("main", { id: "main" }, h("h1.unseen", { tabindex: "-1" }, "litplex"))];

function signIn() {
  const submit = (/** @type {any} */ event) => {
    event.preventDefault();
    open(String(new FormData(event.currentTarget).get("key")).trim());
  };
  return [
    connection(),
    h(
      "main.sign-in",
      { id: "main" },
      h(
        "form.panel",
        { onsubmit: submit },
        h("h1", { tabindex: "-1" }, h("span.logo", null, "litplex"), " dashboard"),
        h("p", null, `The admin API of ${location.host} asks for a key of an operator.`),
        // For programs that keep keys.
        h("input", { autocomplete: "username", hidden: true, value: "operator" }),
        h(
          "label.field",
          null,
          h("span", null, "Key"),
          h("input", {
            name: "key",
            type: "password",
            autocomplete: "current-password",
            required: true,
            ref: (/** @type {any} */ input) => input.focus(),
          }),
          h("small", null, isShared ? "It is sent to this server alone, and forgotten when the page is left." : "It stays in this tab, and is sent to this server alone."),
        ),
        h("p.error", { role: "alert" }, live.refusal),
        h("footer", null, h("button.main", null, "Open")),
      ),
    ),
  ];
}

function frame() {
  const { session, status } = live;
  const link = ([name, label]) =>
    h("a", { href: `#/${name}`, "aria-current": name === (["endpoint", "try"].includes(current.name) ? "" : current.name) ? "page" : undefined }, label);
  return [
    h("a.skip", { href: "#main", onclick: skip }, "Skip to the content"),
    h(
      "header.top",
      null,
      h("a.logo", { href: "#/", "aria-label": "litplex, overview" }, "litplex"),
      h("nav", { "aria-label": "Pages" }, NAVIGATION.map(link)),
      h(
        "div.server",
        null,
        h("span.address", null, status?.url ?? ""),
        h("span.muted", null, status ? `up ${long(status.uptime)}` : ""),
        h(
          "details.menu",
          { onkeydown: closeAtEscape },
          h("summary", null, session?.holder ?? "this user", session?.may_change ? "" : " (read only)"),
          h(
            "div",
            null,
            button("Reload the program …", reloadProgram, guarded()),
            button("Level of the log …", showLogLevel, guarded()),
            button("Stop the server …", stopServer, { ...guarded(), class: "danger" }),
            session?.holder && button("Forget the key", close),
          ),
        ),
      ),
    ),
    connection(),
    h("main", { id: "main", key: location.hash.split("?")[0], "aria-busy": String(status === null) }, current.page.view(current.parts)),
    ...dialogs(),
  ];
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.querySelector("h1")?.focus();
}

/** @param {any} event */
function closeAtEscape(event) {
  if (event.key !== "Escape") return;
  event.currentTarget.open = false;
  event.currentTarget.querySelector("summary").focus();
}

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]"))
    if (!menu.contains(/** @type {any} */ (event.target)) || /** @type {any} */ (event.target).tagName === "BUTTON")
      menu.removeAttribute("open");
});

async function showLogLevel() {
  const { level } = await get("log-level").catch(() => ({ level: "" }));
  setLogLevel(level);
}

/** Says that the server does not respond, and when the page asks again. */
function connection() {
  const { lost } = live;
  return h(
    "div.connection",
    { role: "alert", key: "connection" },
    lost && [
      h("strong", null, lost.error),
      h("span", null, " What is shown may be old; the page asks again by itself."),
      button("Ask now", retry),
    ],
  );
}

drawWith(view);
route();
open();
