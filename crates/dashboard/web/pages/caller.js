/** The key that requests of the playground and replays have. */

import { caller } from "../calls.js";
import { h } from "../ui/dom.js";
import { field } from "../ui/parts.js";

/** The field for the key; it is nowhere but in this page. */
export const callerKey = () =>
  field(
    "Key of a caller",
    h("input", { type: "password", autocomplete: "off", value: caller.key, placeholder: "none", oninput: (/** @type {any} */ event) => (caller.key = event.currentTarget.value.trim()) }),
  );
