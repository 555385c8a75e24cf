// Shows the OpenAPI document: every operation with its parameters, bodies, answers and a command that calls it.

import { $, fill, make } from "../dom.js";
import { commandOf, typeOf } from "./schema.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

/** Every operation of the document, as {tag, method, path, operation}. */
function operationsOf(document) {
  return Object.entries(document.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({
      tag: item[method].tags?.[0] ?? "other", method: method.toUpperCase(), path, operation: item[method],
    })));
}

function table(head, rows) {
  const cells = (kind, row) => make("tr", {}, ...row.map((cell) => make(kind, {}, cell ?? "")));
  return make("table", {}, make("thead", {}, cells("th", head)), make("tbody", {}, ...rows.map((row) => cells("td", row))));
}

function example(content) {
  return content?.example === undefined ? null : make("pre", {}, JSON.stringify(content.example, null, 2));
}

function parametersOf(operation, schemas) {
  const rows = operation.parameters.map(({ name, in: place, required, schema, description }) => [
    make("code", {}, name), place + (required ? ", required" : ""), typeOf(schema, schemas),
    description ?? schema.description ?? "",
  ]);
  return rows.length ? [make("h4", {}, "Parameters"), table(["name", "in", "type", "meaning"], rows)] : [];
}

function bodyOf(operation, schemas) {
  const entries = Object.entries(operation.requestBody?.content ?? {});
  if (!entries.length) return [];
  const [type, content] = entries[0];
  return [make("h4", {}, `Body: ${entries.map(([name]) => name).join(" or ")}`), fieldsOf(content.schema, schemas), example(content, type)];
}

/** The fields of an object, one a row; nothing for any other schema. */
function fieldsOf(schema, schemas) {
  const object = schema?.$ref ? schemas[schema.$ref.split("/").pop()] : schema;
  const fields = Object.entries(object?.properties ?? {});
  if (!fields.length) return null;
  const required = new Set(object.required ?? []);
  return table(["field", "type", "meaning"], fields.map(([name, field]) => [
    make("code", {}, name), typeOf(field, schemas) + (required.has(name) ? ", required" : ""), field.description ?? "",
  ]));
}

function answersOf(operation, schemas) {
  const answers = Object.entries(operation.responses);
  const good = answers.filter(([status]) => status < 400).flatMap(([, answer]) => Object.values(answer.content ?? {}));
  return [
    make("h4", {}, "Answers"),
    table(["status", "meaning"], answers.map(([status, answer]) => [make("code", {}, status), answer.description])),
    ...good.slice(0, 1).flatMap((content) => [fieldsOf(content.schema, schemas), example(content)]),
  ];
}

function section({ method, path, operation }, schemas) {
  return fill(make("section", { class: "operation", id: operation.operationId }),
    make("h3", {}, make("span", { class: "method" }, method), make("code", {}, path)),
    make("p", {}, operation.summary),
    operation.description ? make("p", { class: "faint" }, operation.description) : null,
    make("pre", {}, commandOf(location.origin, method, path, operation)),
    ...parametersOf(operation, schemas), ...bodyOf(operation, schemas), ...answersOf(operation, schemas));
}

const response = await fetch("/openapi.json");
const api = await response.json();
const operations = operationsOf(api);
const tags = [...new Set(operations.map(({ tag }) => tag))];
fill($("index"), ...tags.flatMap((tag) => [
  make("h2", {}, tag),
  ...operations.filter((one) => one.tag === tag).map(({ method, path, operation }) =>
    make("a", { href: `#${operation.operationId}` }, make("span", { class: "method" }, method), path)),
]));
fill($("operations"), ...tags.flatMap((tag) =>
  operations.filter((one) => one.tag === tag).map((one) => section(one, api.components.schemas))));
document.getElementById(location.hash.slice(1))?.scrollIntoView();
