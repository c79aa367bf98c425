/** A chat with an endpoint of the OpenAI API, whose responses come as streams. */

import { guarded } from "../actions.js";
import { callEndpoint } from "../calls.js";
import { h, redraw } from "../ui/dom.js";
import { duration, plural } from "../ui/format.js";
import { button, nothing } from "../ui/parts.js";

/**
 * Returns a chat with an endpoint.
 * @param {string} label
 * @param {string} model
 */
export function chat(label, model) {
  /** @type {{role: string, content: string, picture?: string, note?: string}[]} */
  let messages = [];
  let draft = "";
  let picture = "";
  /** @type {AbortController | null} */
  let running = null;
  /** @type {HTMLElement | null} */
  let list = null;

  async function submit(/** @type {any} */ event) {
    event.preventDefault();
    if (running || !draft.trim()) return;
    messages.push({ role: "user", content: draft, picture });
    [draft, picture] = ["", ""];
    const sent = messages.map(({ role, content, picture }) => ({
      role,
      content: picture ? [{ type: "text", text: content }, { type: "image_url", image_url: { url: picture } }] : content,
    }));
    const reply = { role: "assistant", content: "", note: "" };
    messages.push(reply);
    const mine = (running = new AbortController());
    show();
    const body = JSON.stringify({ model, messages: sent, stream: true });
    const answer = await callEndpoint(label, { type: "application/json", body, accept: "text/event-stream" }, mine.signal, show, (item) => {
      if (item !== "[DONE]") reply.content += said(item);
    });
    if (answer.status >= 400) reply.content = said(answer.text) || answer.text;
    else if (answer.text) reply.content = said(answer.text);
    reply.note = [
      answer.status >= 400 && `status ${answer.status}`,
      answer.error,
      answer.status && !answer.error && `first after ${duration(answer.first)}, all after ${duration(answer.time)}`,
      answer.items.length > 1 && plural(answer.items.length - 1, "piece"),
    ].filter(Boolean).join(" · ");
    running = null;
    show();
  }

  function show() {
    redraw();
    requestAnimationFrame(() => list && (list.scrollTop = list.scrollHeight));
  }

  function attach(/** @type {any} */ event) {
    const reader = new FileReader();
    reader.onload = () => {
      picture = String(reader.result);
      redraw();
    };
    const [file] = event.currentTarget.files;
    if (file) reader.readAsDataURL(file);
    event.currentTarget.value = "";
  }

  return {
    view: () => [
      h(
        "ol.chat",
        { tabindex: "0", "aria-label": "Messages", "aria-live": "polite", "aria-busy": String(running !== null), ref: (/** @type {any} */ element) => (list = element) },
        messages.length === 0 && h("li", { key: "none" }, nothing("Say something.")),
        messages.map(({ role, content, picture, note }, index) =>
          h(
            `li.${role}`,
            { key: String(index) },
            h("span.unseen", null, `${role}: `),
            picture && h("img", { src: picture, alt: "The picture that was sent" }),
            h("p", null, content || (running && index === messages.length - 1 ? "…" : "")),
            note && h("small", null, note),
          ),
        ),
      ),
      h(
        "form.say",
        { onsubmit: submit },
        h("textarea", {
          "aria-label": "Message",
          placeholder: "Message; Shift and Enter for a new line",
          value: draft,
          oninput: (/** @type {any} */ event) => (draft = event.currentTarget.value),
          onkeydown: (/** @type {any} */ event) => {
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            event.currentTarget.form.requestSubmit();
          },
        }),
        h(
          "footer.tools",
          null,
          running
            ? button("Stop", () => running?.abort(), { class: "main danger", key: "stop" })
            : h("button.main", { type: "submit", key: "send", ...guarded() }, "Send"),
          h("label.button", null, picture ? "Another picture" : "Add a picture", h("input.unseen", { type: "file", accept: "image/*", onchange: attach })),
          picture && h("img.small", { src: picture, alt: "The picture that is sent with the message" }),
          h("span.spring", null),
          button("Begin anew", () => {
            running?.abort();
            messages = [];
            redraw();
          }),
        ),
      ),
    ],
  };
}

/** Returns the text of a piece or a whole response. @param {string} json */
function said(json) {
  try {
    const { choices, error, detail } = JSON.parse(json);
    const [first] = choices ?? [];
    return first?.delta?.content ?? first?.message?.content ?? error?.message ?? (detail && JSON.stringify(detail)) ?? "";
  } catch {
    return "";
  }
}
