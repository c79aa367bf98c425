/** The dialog that asks once before something is changed, and the messages that say what was. */

import { h, redraw } from "./dom.js";

/**
 * @typedef {{name: string, label: string, type?: string, value?: any, min?: number, max?: number, step?: string,
 *   hint?: string, options?: string[], isOptional?: boolean}} Field
 * @typedef {{title: string, text: any, action?: string, isDanger?: boolean, fields?: Field[],
 *   run?: (values: Record<string, any>) => Promise<string | Question>}} Question Without an action it only tells.
 */

/** @type {(Question & {isRunning?: boolean, error?: string}) | null} */
let question = null;

/** @type {{text: string, isBad: boolean} | null} */
let message = null;
let hide = 0;

/** What had the focus before the dialog. @type {any} */
let opener = null;

/**
 * Asks, and runs the action if the person confirms it; the dialog shows why it fails, and the action returns what
 * has happened. Returns a function that changes the question, as long as it is shown.
 * @param {Question} asked
 */
export function ask(asked) {
  const mine = { ...asked };
  // A button in a menu is gone with it.
  if (!question) opener = document.activeElement?.closest("details.menu")?.querySelector("summary") ?? document.activeElement;
  question = mine;
  redraw();
  return (/** @type {Partial<Question> & {error?: string}} */ changed) => {
    Object.assign(mine, changed);
    redraw();
  };
}

/** Says what happened. @param {string} text @param {boolean} [isBad] */
export function say(text, isBad = false) {
  message = { text, isBad };
  clearTimeout(hide);
  hide = setTimeout(() => {
    message = null;
    redraw();
  }, 6000);
  redraw();
}

/** @param {any} event */
async function confirm(event) {
  event.preventDefault();
  const asked = question;
  if (!asked?.run || asked.isRunning) return;
  const form = new FormData(event.currentTarget);
  const values = /** @type {Record<string, any>} */ ({});
  for (const { name, type } of asked.fields ?? [])
    // What is left empty is left out.
    if (form.get(name) !== "") values[name] = type === "number" ? Number(form.get(name)) : type === "checkbox" ? form.has(name) : form.get(name);
  Object.assign(asked, { isRunning: true, error: undefined });
  redraw();
  try {
    const told = await asked.run(values);
    if (typeof told !== "string" && question === asked) ask(told);
    else if (question === asked) end();
    if (typeof told === "string") say(told);
  } catch (/** @type {any} */ error) {
    asked.error = error.message;
    if (question !== asked) say(error.message, true);
  }
  asked.isRunning = false;
  redraw();
}

function end() {
  question = null;
  redraw();
  // After the dialog has gone.
  requestAnimationFrame(() => opener?.isConnected && opener.focus());
}

/** @param {Field} field */
function input({ name, label, type = "text", value, options, hint, isOptional, ...limits }) {
  const control = options
    ? h("select", { name }, options.map((each) => h("option", { value: each, selected: each === value }, each || "as configured")))
    : type === "checkbox"
      ? h("input", { type, name, ref: (/** @type {any} */ box) => (box.checked = Boolean(value)) })
      : h("input", { type, name, required: !isOptional, ...limits, ref: (/** @type {any} */ box) => (box.value = value ?? "") });
  const parts = [h("span", null, label), control];
  return h("label.field", { class: type }, type === "checkbox" ? parts.reverse() : parts, hint && h("small", null, hint));
}

/** The open dialog, and the last message. */
export function dialogs() {
  return [
    question &&
      h(
        "dialog",
        {
          key: question.title,
          "aria-labelledby": "asked",
          oncancel: (/** @type {any} */ event) => {
            event.preventDefault();
            end();
          },
          ref: (/** @type {HTMLDialogElement} */ dialog) => {
            dialog.showModal();
          },
        },
        h(
          "form",
          { method: "dialog", onsubmit: confirm },
          h("h2", { id: "asked" }, question.title),
          h("div.text", null, question.text),
          (question.fields ?? []).map(input),
          h("p.error", { role: "alert" }, question.error ?? ""),
          h(
            "footer",
            null,
            h("button", { type: "button", onclick: end }, question.isRunning || !question.action ? "Close" : "Cancel"),
            question.action && h(
              "button.main",
              { class: question.isDanger ? "danger" : "", disabled: question.isRunning },
              question.isRunning ? "Working …" : question.action,
            ),
          ),
        ),
      ),
    h(
      "div.messages",
      { role: "status", key: "messages" },
      message && h("p", { class: message.isBad ? "bad" : "" }, message.text),
    ),
  ];
}
