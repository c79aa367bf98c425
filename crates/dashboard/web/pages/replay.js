/** Sends a remembered request again, and copies it as a command. */

import { guarded } from "../actions.js";
import { endpointPath, get } from "../api.js";
import { asCurl, asPython, callEndpoint } from "../calls.js";
import { taken } from "../schema.js";
import { say } from "../ui/dialog.js";
import { h, redraw } from "../ui/dom.js";
import { bytes } from "../ui/format.js";
import { button, copy, prose, section } from "../ui/parts.js";
import { callerKey } from "./caller.js";
import { fill } from "./playground.js";

/** @typedef {{content_type: string, text: string, is_cut: boolean}} KeptBody */

/** What the server has in place of a secret, and what a body has that is not UTF-8. */
const ALTERED = /"\*\*\*"|\ufffd/;

/**
 * Returns the way to send a request again.
 * @param {any} request
 */
export function replay(request) {
  const { endpoint, id } = request;
  /** What the endpoint takes, once it is known. @type {import("../schema.js").Taken | null} */
  let known = null;
  let keepBodies = "";
  let error = "";
  /** @type {AbortController | null} */
  let running = null;

  async function learn() {
    const [document, config] = await Promise.all([get(endpointPath(endpoint, "/openapi")).catch((failed) => failed), get("config").catch(() => null)]);
    if (document instanceof Error) error = `It cannot be sent again: ${document.message}.`;
    else known = taken(document);
    keepBodies = config?.server.find((/** @type {any} */ each) => each.name === "keep_bodies")?.value ?? "0";
    redraw();
  }

  const isAltered = () => ALTERED.test(request.request_body?.text ?? "");

  /** Returns the request as it came, if its whole body is remembered. @returns {import("../calls.js").Call | null} */
  function original() {
    const { request_body: body, response_body, bytes_in } = request;
    const accept = response_body?.content_type.startsWith("text/event-stream") ? "text/event-stream" : "*/*";
    const needsKey = known?.needsKey;
    if (!body) return bytes_in === 0 ? { type: "", body: "", accept, needsKey } : null;
    const read = new TextEncoder().encode(body.text).length;
    // The body of a refused request is not read, and that of a client that leaves not to its end.
    const isWhole = !body.is_cut && (bytes_in === null || isAltered() ? read > 0 : read >= bytes_in);
    return isWhole ? { type: body.content_type, body: body.text, accept, needsKey } : null;
  }

  /** Says why the body is not there, and what to set. */
  function reason() {
    const { request_body: body, bytes_in, is_recorded } = request;
    if (!is_recorded) return "Its body is not remembered: above 1,000 requests a second an endpoint does not keep the bodies of all.";
    if (keepBodies === "0") return "Its body is not remembered. Set `keep_bodies` to the bytes of each body to be remembered, such as 65536, and start the server again: later requests have theirs.";
    if (body?.is_cut) return `The start of its body is remembered, not all of it. Set \`keep_bodies\` to at least ${bytes_in ?? "the bytes of the longest body"}, and start the server again.`;
    if (body) return "The server has not read its body to the end.";
    return "Its body is not remembered: `keep_bodies` is for JSON and text, not for forms, files and compressed bodies.";
  }

  async function send(/** @type {import("../calls.js").Call} */ call) {
    const mine = (running = new AbortController());
    const number = [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    error = "";
    redraw();
    const answer = await callEndpoint(endpoint, { ...call, id: `replay-${number}` }, mine.signal, () => {});
    running = null;
    if (answer.url) URL.revokeObjectURL(answer.url);
    if (answer.error) error = answer.error;
    else location.hash = `#/requests/replay-${number}?original=${encodeURIComponent(id)}`;
    redraw();
  }

  async function copyAs(/** @type {(label: string, call: import("../calls.js").Call) => string} */ as) {
    const call = original() ?? example(/** @type {any} */ (known));
    try {
      await copy(as(endpoint, call));
      say("Copied.");
    } catch (/** @type {any} */ failed) {
      say(failed.message, true);
    }
  }

  learn();
  return {
    stop: () => running?.abort(),
    view() {
      const call = original();
      const { request_body: body, response_body: answer } = request;
      return [
        section(
          "Send it again",
          known && [
            h(
              "span.tools",
              null,
              button("Copy as curl", () => copyAs(asCurl)),
              button("Copy as Python", () => copyAs(asPython)),
              call && h("a.button", { href: `#/try/${encodeURIComponent(endpoint)}`, onclick: () => fill(endpoint, call) }, "Open in the playground"),
            ),
          ],
          known && !call && h("p.muted", null, prose(`${reason()} The commands have the example of the schema.`)),
          known && call && isAltered() && h("p.muted", null, prose("Parts of its body are masked (`***`): put your own in their place, in the command or in the playground.")),
          known &&
            call &&
            !isAltered() &&
            h(
              "div.tools.replay",
              null,
              callerKey(),
              running
                ? button("Stop", () => running?.abort(), { class: "main danger", key: "stop" })
                : button("Replay", () => send(call), { class: "main", key: "replay", ...guarded() }),
              h("span.muted", { role: "status" }, running ? "Waiting for the response …" : "It goes through the endpoint's guard and queue, and is then shown beside this one."),
            ),
          error && h("p.error", { role: "alert" }, error),
        ),
        (body || answer) && section("Bodies", null, kept("Request", body), kept("Response", answer)),
      ];
    },
  };
}

/** Returns a request with the example of the schema. @param {import("../schema.js").Taken} known @returns {import("../calls.js").Call} */
function example({ example, form, upload, needsKey }) {
  if (example !== null || form.length || !upload.length) return { type: "application/json", body: JSON.stringify(example ?? {}), needsKey };
  const parts = new FormData();
  for (const { name, kind, value } of upload) parts.append(name, kind === "file" ? new File([], name) : String(value ?? ""));
  return { type: "", body: parts, needsKey };
}

/** @param {string} of @param {KeptBody | undefined} body */
function kept(of, body) {
  if (!body) return null;
  const about = `${of}: ${body.content_type}, ${body.is_cut ? "the first " : ""}${bytes(new TextEncoder().encode(body.text).length)}`;
  return h("details", { key: of }, h("summary", null, about), h("pre", { tabindex: "0", role: "region", "aria-label": `Body of the ${of.toLowerCase()}` }, body.text));
}
