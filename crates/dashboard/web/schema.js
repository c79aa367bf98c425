/** What an endpoint takes, as its OpenAPI document says it. */

/**
 * @typedef {{name: string, kind: "text" | "number" | "boolean" | "choice" | "file" | "json", isRequired: boolean,
 *   about: string, options?: any[], value?: any, isBase64?: boolean, isMany?: boolean}} Part
 * @typedef {{isChat: boolean, form: Part[], upload: Part[], example: any, isStream: boolean, needsKey: boolean}} Taken
 */

/** Returns a schema without references and without the choice of null. @param {any} schema @param {any} document @param {number} [depth] @returns {any} */
export function resolved(schema, document, depth = 0) {
  if (!schema || typeof schema !== "object" || depth > 20) return {};
  if (schema.$ref) {
    const target = schema.$ref
      .replace(/^#\//, "")
      .split("/")
      .reduce((/** @type {any} */ at, /** @type {string} */ name) => at?.[name.replace(/~1/g, "/").replace(/~0/g, "~")], document);
    return resolved(target, document, depth + 1);
  }
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) {
    const [first] = choices.filter((/** @type {any} */ each) => each.type !== "null");
    const { anyOf, oneOf, ...own } = schema;
    return { ...resolved(first, document, depth + 1), ...own };
  }
  if (Array.isArray(schema.type)) return { ...schema, type: schema.type.find((/** @type {string} */ type) => type !== "null") };
  return schema;
}

/** @param {string} name @param {any} raw @param {any} document @param {string[]} required @returns {Part} */
function part(name, raw, document, required) {
  const schema = resolved(raw, document);
  const item = schema.type === "array" ? resolved(schema.items, document) : null;
  const isBinary = (/** @type {any} */ each) => each?.format === "binary" || each?.contentMediaType !== undefined;
  const isBase64 = schema.contentEncoding === "base64" || schema.format === "byte" || schema.format === "base64";
  const common = {
    name,
    isRequired: required.includes(name),
    about: schema.description ?? "",
    value: schema.default ?? schema.examples?.[0] ?? schema.example ?? schema.const,
  };
  if (isBase64 || isBinary(schema)) return { ...common, kind: "file", isBase64 };
  if (isBinary(item)) return { ...common, kind: "file", isMany: true };
  if (schema.enum) return { ...common, kind: "choice", options: schema.enum };
  if (schema.type === "string") return { ...common, kind: "text" };
  if (schema.type === "integer" || schema.type === "number") return { ...common, kind: "number" };
  if (schema.type === "boolean") return { ...common, kind: "boolean" };
  return { ...common, kind: "json" };
}

/** Returns a value that has the form of a schema. @param {any} raw @param {any} document @param {number} [depth] @returns {any} */
function example(raw, document, depth = 0) {
  const schema = resolved(raw, document);
  const given = schema.example ?? schema.examples?.[0] ?? schema.default ?? schema.const ?? schema.enum?.[0];
  if (given !== undefined) return given;
  if (depth > 6) return null;
  if (schema.properties) {
    const names = Object.keys(schema.properties).filter((name) => (schema.required ?? []).includes(name));
    return Object.fromEntries(names.map((name) => [name, example(schema.properties[name], document, depth + 1)]));
  }
  if (schema.type === "array") return schema.items ? [example(schema.items, document, depth + 1)] : [];
  return { string: "", integer: 0, number: 0, boolean: false, object: {} }[/** @type {"string"} */ (schema.type)] ?? null;
}

/** Returns what an endpoint takes. @param {any} document @returns {Taken} */
export function taken(document) {
  const operation = /** @type {any} */ (Object.values(document.paths ?? {})[0])?.post;
  const content = operation?.requestBody?.content ?? {};
  const schemaOf = (/** @type {string} */ type) => resolved(content[type]?.schema, document);
  const parts = (/** @type {any} */ schema) =>
    Object.entries(schema.properties ?? {}).map(([name, raw]) => part(name, raw, document, schema.required ?? []));
  const json = schemaOf("application/json");
  const responses = operation?.responses?.["200"]?.content ?? {};
  return {
    isChat: json.properties?.messages !== undefined && json.properties?.model !== undefined,
    form: parts(json),
    upload: parts(schemaOf("multipart/form-data")),
    example: content["application/json"]?.example ?? example(json, document),
    needsKey: (operation?.security ?? []).length > 0,
    isStream: Object.keys(responses).some((type) => type.startsWith("text/event-stream") || type.includes("ndjson")),
  };
}
