/** Tries an endpoint out: a form made from its schema, JSON, a file, or a chat. */

import { guarded } from "../actions.js";
import { endpointPath, get } from "../api.js";
import { asCurl, asPython, callEndpoint } from "../calls.js";
import { endpoint as find } from "../live.js";
import { taken } from "../schema.js";
import { say } from "../ui/dialog.js";
import { h, redraw } from "../ui/dom.js";
import { bytes, duration, plural } from "../ui/format.js";
import { button, choice, copy, field, nothing, section } from "../ui/parts.js";
import { callerKey } from "./caller.js";
import { chat } from "./chat.js";

/**
 * What is tried out at an endpoint; it stays until the page is loaded again.
 * @typedef {{label: string, taken: import("../schema.js").Taken | null, error: string, mode: string, json: string,
 *   file: File | null, picture: string, isStream: boolean, answer: import("../calls.js").Answer | null,
 *   running: AbortController | null, values: Map<string, any>, chat: any}} Trial
 */

/** @type {Map<string, Trial>} */
const trials = new Map();

/** @param {string} label @returns {Trial} */
function trialOf(label) {
  let trial = trials.get(label);
  if (!trial) {
    trial = { label, taken: null, error: "", mode: "", json: "", file: null, picture: "", isStream: false, answer: null, running: null, values: new Map(), chat: null };
    trials.set(label, trial);
  }
  return trial;
}

/** Shows a body instead of the one that is there. @param {string} label @param {import("../calls.js").Call} call */
export function fill(label, { type, body, accept }) {
  const isStream = accept === "text/event-stream";
  Object.assign(trialOf(label), { mode: type.includes("json") ? "json" : "text", json: String(body), isStream, answer: null });
}

/** @param {Trial} trial */
async function learn(trial) {
  try {
    const known = taken(await get(endpointPath(trial.label, "/openapi")));
    trial.taken = known;
    trial.error = "";
    if (!trial.mode) trial.mode = known.isChat ? "chat" : known.upload.some(({ kind }) => kind === "file") ? "upload" : known.form.length ? "form" : "json";
    if (!trial.json) trial.json = known.example === null ? "" : JSON.stringify(known.example, null, 2);
  } catch (/** @type {any} */ error) {
    trial.error = error.message;
  }
  redraw();
}

/** @type {import("../app.js").Page} */
export const playground = {
  title: ([label]) => `Playground ${label}`,
  enter([label]) {
    learn(trialOf(label));
  },
  view([label]) {
    const trial = trialOf(label);
    return [
      h(
        "header.head",
        null,
        h("div", null, h("h1", { tabindex: "-1" }, "Playground ", h("a", { href: `#/endpoint/${encodeURIComponent(label)}` }, label)), h("p.muted", null, "Requests go through the endpoint's own guard and queue.")),
        callerKey(),
      ),
      trial.error && h("p.error", { role: "alert" }, trial.error),
      trial.taken ? form(trial) : !trial.error && nothing("Asking for the schema …"),
      trial.taken && trial.mode !== "chat" && result(trial),
    ];
  },
};

/** @param {Trial} trial */
function form(trial) {
  const known = /** @type {import("../schema.js").Taken} */ (trial.taken);
  const modes = /** @type {[string, string][]} */ ([
    known.isChat && ["chat", "Chat"],
    known.form.length > 0 && !known.isChat && ["form", "Form"],
    known.upload.length > 0 && ["upload", "Upload"],
    ["json", "JSON"],
    ["text", "Text"],
    ["file", "File"],
  ].filter(Boolean));
  const choose = (/** @type {string} */ mode) => {
    trial.mode = mode;
    redraw();
  };
  const head = choice("Kind of request", modes, trial.mode, choose);
  if (trial.mode === "chat") {
    trial.chat ??= chat(trial.label, find(trial.label)?.name ?? "");
    return section("Chat", head, trial.chat.view());
  }
  return section(
    "Request",
    head,
    h(
      "form",
      {
        key: trial.mode,
        class: "request",
        onsubmit: (/** @type {any} */ event) => {
          event.preventDefault();
          start(trial);
        },
      },
      inputs(trial, known),
      h(
        "footer.tools",
        null,
        trial.running
          ? button("Stop", () => trial.running?.abort(), { class: "main danger", key: "stop" })
          : h("button.main", { type: "submit", key: "send", ...guarded() }, "Send"),
        h(
          "label.field.checkbox",
          null,
          h("input", { type: "checkbox", checked: trial.isStream, onchange: (/** @type {any} */ event) => (trial.isStream = event.currentTarget.checked) }),
          h("span", null, "as a stream"),
        ),
        h("span.spring", null),
        button("Copy as curl", () => copyAs(trial, asCurl)),
        button("Copy as Python", () => copyAs(trial, asPython)),
      ),
    ),
  );
}

/** @param {Trial} trial @param {import("../schema.js").Taken} known */
function inputs(trial, known) {
  const text = (/** @type {string} */ label) =>
    field(label, h("textarea", { spellcheck: "false", value: trial.json, oninput: (/** @type {any} */ event) => (trial.json = event.currentTarget.value), onkeydown: sendWithKeys }));
  switch (trial.mode) {
    case "form":
      return known.form.map((part) => input(trial, part));
    case "upload":
      return known.upload.map((part) => input(trial, part));
    case "json":
      return text("Body (JSON)");
    case "text":
      return text("Body (text)");
    default:
      return drop(trial, "File", trial.file, trial.picture, (files) => {
        trial.file = files[0] ?? null;
        URL.revokeObjectURL(trial.picture);
        trial.picture = trial.file?.type.startsWith("image/") ? URL.createObjectURL(trial.file) : "";
      });
  }
}

/** Sends with Ctrl and Enter. @param {any} event */
function sendWithKeys(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.form.requestSubmit();
}

/**
 * A place for files: they are dropped there, or chosen.
 * @param {Trial} trial
 * @param {string} label
 * @param {any} chosen
 * @param {string} picture
 * @param {(files: File[]) => void} take
 * @param {boolean} [isMany]
 */
function drop(trial, label, chosen, picture, take, isMany = false) {
  const taken = (/** @type {FileList | null | undefined} */ files) => {
    take([...(files ?? [])]);
    redraw();
  };
  const over = (/** @type {any} */ event, /** @type {boolean} */ is) => {
    event.preventDefault();
    event.currentTarget.classList.toggle("over", is);
  };
  const names = [chosen ?? []].flat().map((/** @type {File} */ file) => `${file.name}, ${bytes(file.size)}`);
  return h(
    "label.drop",
    {
      ondragover: (/** @type {any} */ event) => over(event, true),
      ondragleave: (/** @type {any} */ event) => over(event, false),
      ondrop: (/** @type {any} */ event) => {
        over(event, false);
        taken(event.dataTransfer?.files);
      },
    },
    h("span", null, h("b", null, label), ` ${names.join("; ") || "Drop a file here, or choose one."}`),
    h("input", { type: "file", multiple: isMany, onchange: (/** @type {any} */ event) => taken(event.currentTarget.files) }),
    picture && h("img", { src: picture, alt: `The chosen picture for ${label}` }),
  );
}

/** @param {Trial} trial @param {import("../schema.js").Part} part */
function input(trial, part) {
  const { name, kind, isRequired, about, options, isMany } = part;
  const label = isRequired ? name : `${name} (optional)`;
  const value = trial.values.has(name) ? trial.values.get(name) : part.value;
  const set = (/** @type {any} */ given) => trial.values.set(name, given);
  const shown = value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value);
  const oninput = (/** @type {any} */ event) => set(event.currentTarget.value);
  switch (kind) {
    case "file": {
      const files = [value ?? []].flat().filter((/** @type {any} */ each) => each instanceof File);
      return drop(trial, label, files, trial.values.get(`${name} picture`) ?? "", (given) => {
        set(isMany ? given : given[0]);
        URL.revokeObjectURL(trial.values.get(`${name} picture`));
        trial.values.set(`${name} picture`, given[0]?.type.startsWith("image/") ? URL.createObjectURL(given[0]) : "");
      }, isMany);
    }
    case "boolean":
      return h("label.field.checkbox", null, h("input", { type: "checkbox", checked: Boolean(value), onchange: (/** @type {any} */ event) => set(event.currentTarget.checked) }), h("span", null, label, about && h("small", null, ` ${about}`)));
    case "choice":
      return field(label, h("select", { value: shown, onchange: oninput }, !isRequired && h("option", { value: "" }, "–"), (options ?? []).map((each) => h("option", { value: String(each) }, String(each)))), about);
    case "number":
      return field(label, h("input", { type: "number", step: "any", value: shown, required: isRequired, oninput }), about);
    case "json":
      return field(label, h("textarea.short", { value: shown, placeholder: "JSON", spellcheck: "false", oninput, onkeydown: sendWithKeys }), about);
    default:
      return field(label, h("textarea.short", { value: shown, oninput, onkeydown: sendWithKeys }), about);
  }
}

/** Returns the bytes of a file in base64. @param {File} file @returns {Promise<string>} */
const base64 = (file) =>
  new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(String(reader.result).split(",")[1]);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });

/** Returns the request. @param {Trial} trial @returns {Promise<import("../calls.js").Call>} */
async function made(trial) {
  const accept = trial.isStream ? "text/event-stream" : "*/*";
  return { ...(await content(trial)), accept, needsKey: trial.taken?.needsKey };
}

/** @param {Trial} trial @returns {Promise<import("../calls.js").Call>} */
async function content(trial) {
  const known = /** @type {import("../schema.js").Taken} */ (trial.taken);
  switch (trial.mode) {
    case "json":
      if (trial.json.trim()) JSON.parse(trial.json);
      return { type: "application/json", body: trial.json };
    case "text":
      return { type: "text/plain; charset=utf-8", body: trial.json };
    case "file":
      if (!trial.file) throw new Error("Choose a file first.");
      return { type: trial.file.type || "application/octet-stream", body: trial.file };
    case "upload": {
      const form = new FormData();
      for (const part of known.upload)
        for (const value of [given(trial, part) ?? []].flat())
          form.append(part.name, value instanceof File ? value : typeof value === "string" ? value : JSON.stringify(value));
      return { type: "", body: form };
    }
    default: {
      const entries = [];
      for (const part of known.form) {
        const value = given(trial, part);
        if (value === undefined) continue;
        entries.push([part.name, value instanceof File ? await base64(value) : value]);
      }
      return { type: "application/json", body: JSON.stringify(Object.fromEntries(entries)) };
    }
  }
}

/** Returns the value of a field; `undefined` where none is given. @param {Trial} trial @param {import("../schema.js").Part} part */
function given(trial, { name, kind, isRequired, value: usual }) {
  const value = trial.values.has(name) ? trial.values.get(name) : usual;
  if (value === undefined || (value === "" && !(isRequired && kind === "text"))) return kind === "text" && isRequired ? "" : undefined;
  if (typeof value !== "string" || kind === "text" || kind === "choice") return value;
  if (kind === "number") return Number(value);
  try {
    return JSON.parse(value);
  } catch {
    throw new Error(`${name} is not JSON.`);
  }
}

/** @param {Trial} trial */
async function start(trial) {
  if (trial.running) return;
  if (trial.answer?.url) URL.revokeObjectURL(trial.answer.url);
  const mine = (trial.running = new AbortController());
  trial.answer = null;
  trial.error = "";
  redraw();
  try {
    const call = await made(trial);
    await callEndpoint(trial.label, call, mine.signal, (answer) => {
      trial.answer = answer;
      redraw();
    });
  } catch (/** @type {any} */ error) {
    trial.error = error.message;
  }
  trial.running = null;
  redraw();
}

/** @param {Trial} trial @param {(label: string, call: any) => string} as */
async function copyAs(trial, as) {
  try {
    await copy(as(trial.label, await made(trial)));
    say("Copied.");
  } catch (/** @type {any} */ error) {
    say(error.message, true);
  }
}

/** @param {Trial} trial */
function result({ answer, running }) {
  const sent = h("p.nothing", { role: "status" }, running ? "Waiting for the response …" : "No request was sent yet.");
  if (!answer || (running && !answer.status)) return section("Response", null, sent);
  const { status, first, time, size, error } = answer;
  return section(
    "Response",
    h(
      "p.tools",
      { role: "status" },
      status > 0 && h("b", { class: status >= 400 ? "failed" : "passed" }, status),
      status > 0 && [h("span", null, `first byte after ${duration(first)}`), h("span", null, `${running ? "so far" : "all after"} ${duration(time || first)}`), h("span", null, bytes(size))],
      answer.items.length > 0 && h("span", null, plural(answer.items.length, "item")),
    ),
    error && h("p.error", { role: "alert" }, error),
    body(answer),
    answer.headers.length > 0 &&
      h("details", null, h("summary", null, "Headers"), h("pre", { tabindex: "0", role: "region", "aria-label": "Headers of the response" }, answer.headers.map(([name, value]) => `${name}: ${value}`).join("\n"))),
  );
}

/** @param {import("../calls.js").Answer} answer */
function body({ type, url, text, items, status }) {
  if (url && type.startsWith("image/")) return h("img.answer", { src: url, alt: "The picture that the endpoint responds with" });
  if (url && /^(audio|video)\//.test(type)) return h(type.startsWith("audio/") ? "audio" : "video", { src: url, controls: true, "aria-label": "What the endpoint responds with" });
  if (url) return h("p", null, h("a", { href: url, download: "response" }, `Save the response (${type})`));
  if (!status) return null;
  const shown = items.length ? items.join("\n") : pretty(text);
  return [pictures(shown), h("pre", { tabindex: "0", role: "region", "aria-label": "Body of the response" }, shown || "The response has no body.")];
}

/** The pictures in a text, as `data:` addresses. @param {string} text */
function pictures(text) {
  const found = text.match(/data:image\/(?:png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]{16,}/g) ?? [];
  return found.slice(0, 8).map((src) => h("img.answer", { src, alt: "A picture in the response" }));
}

/** @param {string} text */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
