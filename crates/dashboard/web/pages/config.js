/** The configuration in use, with secrets masked, and who is admitted. */

import { guarded, reloadProgram } from "../actions.js";
import { get } from "../api.js";
import { h, redraw } from "../ui/dom.js";
import { button, nothing, section, table } from "../ui/parts.js";

/** @typedef {{name: string, value: string, is_default: boolean}} Setting */

/** @type {{server: Setting[], endpoints: {endpoint: string, options: Setting[]}[]} | null} */
let known = null;
/** @type {any[]} */
let scopes = [];
let error = "";
let withDefaults = false;

async function read() {
  try {
    const [config, keys] = await Promise.all([get("config"), get("keys")]);
    [known, scopes, error] = [config, keys.scopes, ""];
  } catch (/** @type {any} */ failed) {
    error = failed.message;
  }
  redraw();
}

/** The words for the parts of a server that keys open. @type {Record<string, string>} */
const SCOPES = {
  server: "the server's own routes, and endpoints without keys of their own",
  admin: "all operations of operators",
  admin_read: "operators, to look only",
};

/** @type {import("../app.js").Page} */
export const config = {
  title: () => "Configuration",
  enter: () => void read(),
  view() {
    return [h("header.head", null, h("h1", { tabindex: "-1" }, "Configuration"), button("Reload the program …", reloadProgram, guarded())), error ? h("p.error", { role: "alert" }, error) : known ? all(known) : nothing("Asking the server …")];
  },
};

/** @param {NonNullable<typeof known>} config */
function all({ server, endpoints }) {
  return [
    h(
      "label.field.checkbox",
      null,
      h("input", { type: "checkbox", checked: withDefaults, onchange: (/** @type {any} */ event) => { withDefaults = event.currentTarget.checked; redraw(); } }),
      h("span", null, "with the options that have their defaults"),
    ),
    options("Server", server),
    endpoints.map(({ endpoint, options: own }) => options(endpoint, own)),
    section("Keys", h("span.muted", null, "names alone; the server does not know the keys"), keys()),
  ];
}

/** @param {string} of @param {Setting[]} settings */
function options(of, settings) {
  const shown = settings.filter((each) => withDefaults || !each.is_default);
  const rows = shown.map(({ name, value, is_default }) => [h("code", null, name), h("samp", { class: is_default ? "muted" : "" }, value)]);
  return section(of, null, rows.length ? table(`Options of ${of}`, ["Option", "Value"], rows) : h("p.muted", null, "All options have their defaults."));
}

function keys() {
  const rows = scopes.map(({ scope, endpoint, is_open, holders, file, issuer, token_scopes = [] }) => {
    const others = [file && `those in ${file}`, issuer && `tokens of ${issuer}`, token_scopes.length > 0 && `with ${token_scopes.join(", ")}`];
    return [endpoint ?? SCOPES[scope] ?? scope, is_open ? "every client" : [holders.join(", "), ...others].filter(Boolean).join("; ")];
  });
  return table("Who is admitted", ["To", "Admitted"], rows);
}
