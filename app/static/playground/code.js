// Code that repeats a request outside the browser. People paste it unchanged, so every value is quoted.

import { address } from "./gateway.js";

function shell(value) {
  return /^[\w@%+=:,./-]+$/.test(value) ? value : `'${value.replaceAll("'", "'\\''")}'`;
}

// JSON's strings are Python's too.
const python = JSON.stringify;

// A name in curl's form syntax: quoted, as it may hold ; and ,
function part(name) {
  return `image=@"${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

function number(text) {
  return text !== "" && Number.isFinite(Number(text)) ? text : python(text);
}

function params(query) {
  const grouped = new Map();
  for (const [name, value] of query) grouped.set(name, [...(grouped.get(name) ?? []), value]);
  const text = new Set(["model", "version", "classes"]);
  const entries = [...grouped].map(([name, values]) => {
    const written = values.map((value) => (text.has(name) ? python(value) : number(value)));
    return `${python(name)}: ${written.length > 1 ? `[${written.join(", ")}]` : written[0]}`;
  });
  return entries.length === 0 ? "" : `    params={${entries.join(", ")}},\n`;
}

// request: {route, query: [[name, value]], text, file: {name, origin: "sample" | "file" | "pasted"}}
export function curl(request) {
  const url = shell(address(`v1/${request.route}`, request.query).href);
  if (request.file === undefined) {
    return `curl -H 'Content-Type: application/json' -d ${shell(JSON.stringify({ text: request.text }))} ${url}`;
  }
  const { name, origin } = request.file;
  const fetched = origin === "sample" ? `curl -sO ${shell(address(`playground/samples/${name}`).href)}\n` : "";
  const field = /^[\w.-]+$/.test(name) ? `image=@${name}` : part(name);
  return `${fetched}curl -F ${shell(field)} ${url}`;
}

export function httpx(request) {
  const url = `    ${python(address(`v1/${request.route}`).href)},\n`;
  const end = "    timeout=60,\n)\nprint(answer.json())";
  if (request.file === undefined) {
    return `import httpx\n\nanswer = httpx.post(\n${url}${params(request.query)}    json={"text": ${python(request.text)}},\n${end}`;
  }
  const { name, origin } = request.file;
  const bytes =
    origin === "sample"
      ? `httpx.get(${python(address(`playground/samples/${name}`).href)}).content`
      : `Path(${python(name)}).read_bytes()`;
  const imports = origin === "sample" ? "import httpx\n" : "from pathlib import Path\n\nimport httpx\n";
  const files = `    files={"image": (${python(name)}, image)},\n`;
  return `${imports}\nimage = ${bytes}\nanswer = httpx.post(\n${url}${params(request.query)}${files}${end}`;
}

// What to do before running the code.
export function hint(request) {
  if (request.file === undefined || request.file.origin === "sample") return "";
  if (request.file.origin === "pasted") return `First save the pasted picture as ${request.file.name}.`;
  return `Run it in the folder that holds ${request.file.name}.`;
}
