/** What the command can do with a server and its endpoints. Each asks once where it changes something. */

import { change, endpointPath, getText } from "./api.js";
import { live, refresh } from "./live.js";
import { h, redraw } from "./ui/dom.js";
import { ask } from "./ui/dialog.js";

/** Returns the attributes of a button that changes something: disabled without the right. */
export const guarded = () =>
  live.session?.may_change ? {} : { disabled: true, title: "Your key may only read." };

/** @param {string} method @param {string} label @param {string} rest @param {unknown} [body] */
async function operate(method, label, rest, body) {
  const told = await change(method, endpointPath(label, rest), body);
  await refresh().catch(() => {});
  return told;
}

/** @param {import("./live.js").Endpoint} endpoint */
export function scale({ label, wanted, min_workers: min, max_workers: max }) {
  const configured = max === null ? "the number of the configuration" : `between ${min} and ${max}, as the load asks for`;
  ask({
    title: `Scale ${label}`,
    text: "Workers that are too many finish their requests first. With 0 the endpoint sleeps until a request comes. The load does not change another number.",
    action: "Scale",
    fields: [
      { name: "workers", label: "Workers", type: "number", value: wanted, min: 0, max: max ?? 1024, step: "1" },
      { name: "auto", label: `Instead ${configured}`, type: "checkbox" },
    ],
    run: async ({ workers, auto }) => {
      const told = await operate("POST", label, "/scale", { workers: auto ? "auto" : workers });
      return `${label} is to have ${told.wanted} workers, not ${told.before}.`;
    },
  });
}

/** @param {import("./live.js").Endpoint} endpoint */
export function reload({ label }) {
  ask({
    title: `Reload ${label}`,
    text: "New workers load the model beside the old ones, and take the requests once all are ready. No request is lost. In place, the old ones stop first, and requests wait meanwhile.",
    action: "Reload",
    fields: [
      { name: "timeout", label: "Seconds that they have to become ready", type: "number", value: 600, min: 1, max: 86_400, step: "any" },
      { name: "canary", label: "Share of the requests on trial, from 0 to 1", type: "number", min: 0, max: 1, step: "any", isOptional: true, hint: "Empty: all requests at once." },
      { name: "shadow", label: "Share of which copies are on trial, from 0 to 1", type: "number", min: 0, max: 1, step: "any", isOptional: true, hint: "Their answers are compared and dropped. Not with the share above." },
      { name: "swap", label: "Beside the old workers, or in place", options: ["", "overlap", "in_place"], value: "" },
    ],
    run: async (values) => {
      const told = await operate("POST", label, "/reload", values);
      const changes = told.changes ? ` ${told.changes}` : "";
      return `Generation ${told.generation} of ${label} is ready after ${told.seconds.toFixed(1)} s.${changes}`;
    },
  });
}

/** @param {string} label @param {number} generation */
export function promote(label, generation) {
  ask({
    title: `Promote generation ${generation} of ${label}`,
    text: "All new requests are for it from now on.",
    action: "Promote",
    run: async () => {
      await operate("POST", label, "/promote");
      return `Generation ${generation} of ${label} is promoted.`;
    },
  });
}

/** Ends a trial, or returns to an earlier generation. @param {string} label @param {number} [generation] */
export function rollback(label, generation) {
  ask({
    title: generation === undefined ? `Roll back the generation on trial of ${label}` : `Return ${label} to generation ${generation}`,
    text: generation === undefined ? "It gets no request and no copy any more." : "Its workers are started again, and take the requests once they are ready.",
    action: generation === undefined ? "Roll back" : "Return",
    isDanger: generation === undefined,
    run: async () => {
      await operate("POST", label, "/rollback", generation === undefined ? {} : { generation });
      return generation === undefined ? `The generation on trial of ${label} is rolled back.` : `${label} is back at generation ${generation}.`;
    },
  });
}

/** @param {string} label */
export function pause(label) {
  ask({
    title: `Pause ${label}`,
    text: "New requests wait in the queue, within their time budgets, until the endpoint is resumed.",
    action: "Pause",
    run: async () => {
      await operate("POST", label, "/pause");
      return `${label} is paused.`;
    },
  });
}

/** @param {string} label */
export function drain(label) {
  ask({
    title: `Drain ${label}`,
    text: "New requests get 503 until the endpoint is resumed. Those in progress finish, and so do calls of other endpoints.",
    action: "Drain",
    isDanger: true,
    run: async () => {
      await operate("POST", label, "/drain");
      return `${label} drains.`;
    },
  });
}

/** @param {string} label */
export function resume(label) {
  ask({
    title: `Resume ${label}`,
    text: "The endpoint answers requests again.",
    action: "Resume",
    run: async () => {
      await operate("POST", label, "/resume");
      return `${label} serves.`;
    },
  });
}

/** The stacks that are shown, by worker. @type {Map<string, string>} */
export const stacks = new Map();

/** Shows the stacks of a worker's threads. @param {string} label @param {number} slot */
export async function stack(label, slot) {
  const worker = `${label}#${slot}`;
  stacks.set(worker, "Asking the worker …");
  redraw();
  const text = await getText(endpointPath(label, `/workers/${slot}/stack`)).catch((error) => error.message);
  stacks.set(worker, text);
  redraw();
}

/** Sets the level of the log. @param {string} level */
export function setLogLevel(level) {
  ask({
    title: "Level of the log",
    text: "It holds until the server ends. An endpoint's own level stays.",
    action: "Set",
    fields: [{ name: "level", label: "Level", value: level, hint: "info, debug, warn, or info,litplex_workers=debug" }],
    run: async (values) => {
      const told = await change("PUT", "log-level", values);
      return `The level of the log is ${told.level}.`;
    },
  });
}

/** Reads the configuration again: shows what differs, and applies it if the person confirms. */
export async function reloadProgram() {
  const title = "Reload the program";
  const update = ask({ title, text: "The server reads the configuration again …" });
  try {
    const { plan } = await change("POST", "reload", { dry_run: true });
    const isEmpty = !plan.app && plan.endpoints.every((/** @type {any} */ each) => each.change === "unchanged");
    update({ text: planned(plan), ...(isEmpty ? {} : { action: "Apply", run: applyPlan }) });
  } catch (/** @type {any} */ error) {
    update({ text: "Nothing has changed.", error: error.message });
  }
}

/** @returns {Promise<import("./ui/dialog.js").Question>} */
async function applyPlan() {
  const { results } = await change("POST", "reload", {});
  await refresh().catch(() => {});
  const failed = results.filter((/** @type {any} */ each) => each.error).length;
  const title = failed ? `${failed} of ${results.length} changes failed` : "The program is reloaded";
  return { title, text: h("ul.plan", null, results.map(result)) };
}

/** The words for what becomes of an endpoint. @type {Record<string, string>} */
const CHANGES = { options: "new options, the same workers", reload: "new workers", added: "a new endpoint", removed: "is removed after its requests" };

/** Says what a reload changes. @param {any} plan */
function planned({ endpoints, restart, app }) {
  const changed = endpoints.filter((/** @type {any} */ each) => each.change !== "unchanged");
  const option = ({ endpoint, option, before, after }) => h("li", null, endpoint && `${endpoint}: `, h("code", null, option), `: ${before} → ${after}`);
  const details = ({ options = [], files = [] }) => h("ul", null, options.map(option), files.map((/** @type {string} */ file) => h("li", null, h("code", null, file), " has changed")));
  return [
    !changed.length && !app && h("p", null, "Nothing differs that a reload applies."),
    h("ul.plan", null, changed.map((/** @type {any} */ each) => h("li", null, h("b", null, each.endpoint), ` ${CHANGES[each.change] ?? each.change}`, details(each)))),
    app && h("p", null, "The process with the program's own routes and middlewares is replaced."),
    restart.length > 0 && [h("p", null, "Only a start of the server applies:"), h("ul.plan", null, restart.map(option))],
  ];
}

/** @param {any} result */
function result({ endpoint, change, generation, seconds, error }) {
  if (error) return h("li", null, h("b", null, endpoint), " stays as it was: ", h("span.failed", null, error));
  const told = generation === undefined ? { options: "has its new options", removed: "is removed" }[/** @type {"options"} */ (change)] ?? change : `is served by generation ${generation}${seconds ? `, which was ready after ${seconds.toFixed(1)} s` : ""}`;
  return h("li", null, h("b", null, endpoint), ` ${told}`);
}

/** Stops the server. */
export function stopServer() {
  const requests = live.load.reduce((sum, { in_flight, queued }) => sum + in_flight + queued, 0);
  ask({
    title: "Stop the server",
    text: h("span", null, h("strong", null, live.status?.url), ` ends. Requests in progress (${requests} now) are answered first, within its grace.`),
    action: "Stop the server",
    isDanger: true,
    run: async () => {
      await change("POST", "stop");
      return "The server stops.";
    },
  });
}
