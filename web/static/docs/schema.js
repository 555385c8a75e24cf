// Texts about schemas and operations of an OpenAPI document.

/** A JSON Schema in a few words. */
export function typeOf(schema, schemas) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const variants = schema.anyOf ?? schema.oneOf;
  if (variants) return variants.map((variant) => typeOf(variant, schemas)).join(" | ");
  if (schema.type === "array") return `list of ${typeOf(schema.items, schemas) || "anything"}`;
  return [schema.type ?? "anything", schema.format ? `(${schema.format})` : "", boundsOf(schema)].filter(Boolean).join(" ");
}

function boundsOf({ minimum, maximum, maxLength, default: preset }) {
  const range = minimum !== undefined || maximum !== undefined ? `${minimum ?? ""}..${maximum ?? ""}` : "";
  const length = maxLength !== undefined ? `at most ${maxLength} characters` : "";
  const given = preset !== undefined && preset !== null ? `= ${JSON.stringify(preset)}` : "";
  return [range, length, given].filter(Boolean).join(", ");
}

/** A command for a shell that calls the operation. */
export function commandOf(origin, method, path, operation) {
  const parts = [`curl${method === "GET" ? "" : ` -X ${method}`} '${origin}${path}'`];
  if (operation.security?.length) parts.push('-H "Authorization: Bearer $CONCORD_API_KEY"');
  const [type, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  return [...parts, ...bodyArguments(type, content)].join(" \\\n  ");
}

/** The arguments of curl that send a body of this type: the required fields of a form, a file, or the example. */
function bodyArguments(type, content) {
  if (!type) return [];
  if (type === "multipart/form-data") return content.schema.required.map((name) => `-F '${name}=@recording.wav'`);
  const header = `-H 'Content-Type: ${type.includes("*") ? "application/octet-stream" : type}'`;
  if (content.schema?.format === "binary") return [header, "--data-binary '@recording.wav'"];
  if (content.example === undefined) return [header];
  return [header, `-d '${JSON.stringify(content.example).replaceAll("'", "'\\''")}'`];
}
