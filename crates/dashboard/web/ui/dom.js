/**
 * The view: trees of nodes, and the smallest change of the document that shows a tree.
 *
 * A page is drawn as a whole, from the state, whenever something changed; elements stay where a tree has the
 * same element at the same place, or with the same key, so that focus and what a person types are kept.
 * Nothing here parses HTML.
 */

/**
 * @typedef {Record<string, any>} Props The attributes of an element. `on…` are listeners, `style` an object of
 *   properties, `ref` a function that gets the element once it is created, `key` its identity among siblings.
 * @typedef {{tag: string, props: Props, children: Node[], key?: string, text?: string}} Node
 * @typedef {Node | string | number | null | undefined | false | Child[]} Child
 * @typedef {{node: Node, element: any}} Drawn
 */

const SVG = "http://www.w3.org/2000/svg";

/** Attributes that are set as properties, because the person changes them too. */
const LIVE = new Set(["value", "checked", "selected", "disabled", "open"]);

/** @type {WeakMap<any, Drawn[]>} The children that were drawn in an element. */
const drawn = new WeakMap();

/**
 * Returns the node of an element.
 * @param {string} name The tag, and classes after dots: `div.card`.
 * @param {Props | null} [given]
 * @param {...Child} children
 * @returns {Node}
 */
export function h(name, given, ...children) {
  const [tag, ...classes] = name.split(".");
  const { key, ...props } = given ?? {};
  if (props.class) classes.push(props.class);
  if (classes.length) props.class = classes.join(" ");
  return { tag, props, children: flat(children), key };
}

/**
 * @param {Child[]} children
 * @returns {Node[]}
 */
function flat(children) {
  return children.flat(9).map((child) => {
    // What is left out keeps its place, so that the siblings after it keep theirs.
    if (child === null || child === undefined || child === false || child === true) return empty;
    return typeof child === "object" ? /** @type {Node} */ (child) : text(String(child));
  });
}

const empty = /** @type {Node} */ ({ tag: "", props: {}, children: [] });

/** @param {string} content @returns {Node} */
const text = (content) => ({ tag: "#", props: {}, children: [], text: content });

/**
 * Shows nodes as the children of an element.
 * @param {any} parent
 * @param {Child[]} children
 */
export function render(parent, children) {
  patch(parent, flat(children), parent.namespaceURI === SVG);
}

/** @param {any} parent @param {Node[]} nodes @param {boolean} inSvg */
function patch(parent, nodes, inSvg) {
  /** @type {Map<string, Drawn>} */
  const before = new Map();
  const place = (/** @type {Node} */ node, /** @type {number} */ index) =>
    node.key === undefined ? `${index}:${node.tag}` : `${node.key}:${node.tag}`;
  let index = 0;
  for (const each of drawn.get(parent) ?? []) before.set(place(each.node, index++), each);
  const after = nodes.map((node, at) => {
    const known = before.get(place(node, at));
    if (known) before.delete(place(node, at));
    return known ? update(known, node, inSvg) : create(node, inSvg);
  });
  for (const { element } of before.values()) element?.remove();
  let cursor = parent.firstChild;
  if (!drawn.has(parent)) while (cursor) [cursor] = [cursor.nextSibling, cursor.remove()];
  for (const { element } of after) {
    if (!element) continue;
    if (element === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(element, cursor);
  }
  drawn.set(parent, after);
  // A value can be chosen once its options are there.
  for (const { node, element } of after)
    if (node.tag === "select" && "value" in node.props) element.value = node.props.value;
}

/** @param {Node} node @param {boolean} inSvg @returns {Drawn} */
function create(node, inSvg) {
  if (node.tag === "") return { node, element: null };
  if (node.tag === "#") return { node, element: document.createTextNode(node.text ?? "") };
  const isSvg = inSvg || node.tag === "svg";
  const element = isSvg
    ? document.createElementNS(SVG, node.tag)
    : document.createElement(node.tag);
  for (const name in node.props) set(element, name, undefined, node.props[name]);
  patch(element, node.children, isSvg);
  // Once it is in the document.
  if (node.props.ref) queueMicrotask(() => node.props.ref(element));
  return { node, element };
}

/** @param {Drawn} known @param {Node} node @param {boolean} inSvg @returns {Drawn} */
function update(known, node, inSvg) {
  const { element, node: old } = known;
  if (old === node) return known;
  if (node.tag === "#") {
    if (old.text !== node.text) element.data = node.text;
  } else if (node.tag !== "") {
    for (const name in old.props)
      if (!(name in node.props)) set(element, name, old.props[name], undefined);
    for (const name in node.props) set(element, name, old.props[name], node.props[name]);
    patch(element, node.children, inSvg || node.tag === "svg");
  }
  return { node, element };
}

/** @param {any} element @param {string} name @param {any} old @param {any} value */
function set(element, name, old, value) {
  if (name === "ref") return;
  if (name.startsWith("on")) element[name] = value ?? null;
  else if (name === "style") {
    for (const property in value) element.style.setProperty(property, value[property]);
  } else if (LIVE.has(name) && element.tagName !== "OPTION") {
    if (element[name] !== (value ?? "")) element[name] = value ?? (name === "value" ? "" : false);
  } else if (value !== old) {
    if (value === undefined || value === null || value === false) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
}

/** @type {() => void} */
let draw = () => {};
let isDue = false;

/** Sets what draws the whole page. @param {() => void} view */
export function drawWith(view) {
  draw = view;
}

/** Draws the page with the next frame. */
export function redraw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    draw();
  });
}
