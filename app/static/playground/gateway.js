// All requests to the gateway. Addresses are relative to this page, so that they work behind a path prefix too.

// A refused request; `fields` are those of RFC 9457.
export class Problem extends Error {
  constructor(fields) {
    super(fields.detail);
    this.fields = fields;
  }
}

export function address(path, query = []) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of query) url.searchParams.append(name, value);
  return url;
}

async function call(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "No answer", detail: "The gateway cannot be reached.", code: "unreachable" });
  }
}

async function refuse(response) {
  const id = response.headers.get("X-Request-ID");
  const fallback = { title: "No answer", detail: `The server answered ${response.status}.`, code: "unknown", request_id: id };
  throw new Problem(await response.json().catch(() => fallback));
}

// body: {image: File} or {text: string}. Returns the answer, the ms until it was complete, and the server's spans in ms.
export async function ask(url, body, signal) {
  const begun = performance.now();
  const response = await post(url, body, "application/json", signal);
  const answer = await response.json();
  return { answer, total: performance.now() - begun, spans: spans(response.headers.get("Server-Timing")) };
}

// The picture with its boxes, as a JPEG.
export async function drawn(url, body) {
  return (await post(url, body, "image/jpeg")).blob();
}

async function post(url, body, accept, signal) {
  const headers = { Accept: accept };
  let content;
  if (body.image === undefined) {
    headers["Content-Type"] = "application/json";
    content = JSON.stringify(body);
  } else {
    content = new FormData();
    content.append("image", body.image);
  }
  const response = await call(url, { method: "POST", signal, headers, body: content });
  if (!response.ok) await refuse(response);
  return response;
}

export async function models() {
  const response = await call(address("v1/models"));
  if (!response.ok) await refuse(response);
  return (await response.json()).models;
}

// Not ready is an answer too: its body says why.
export async function readiness() {
  return (await call(address("readyz"))).json();
}

export async function sample(name) {
  const response = await call(address(`playground/samples/${name}`));
  if (!response.ok) await refuse(response);
  return new File([await response.blob()], name, { type: "image/jpeg" });
}

// "read;dur=1.50, triton;dur=20.10" -> [["read", 1.5], ["triton", 20.1]]
export function spans(header) {
  const parts = (header ?? "").split(",").map((part) => part.trim().match(/^([\w.-]+);.*?dur=([\d.]+)/));
  return parts.filter((match) => match !== null).map((match) => [match[1], Number(match[2])]);
}
