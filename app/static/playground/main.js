// The page: input -> request -> answer on the screen.

import { bars, percent } from "./bars.js";
import { Boxes } from "./boxes.js";
import { Catalogue } from "./catalogue.js";
import { curl, hint, httpx } from "./code.js";
import { byId, element } from "./element.js";
import { address, ask, drawn, Problem } from "./gateway.js";
import * as picture from "./picture.js";
import { tabs } from "./tabs.js";
import { timing } from "./timing.js";

const VERBS = { classify: "Classify", detect: "Detect", sentiment: "Read the sentiment" };
const OPTIONS = { classify: ["top_k"], detect: ["iou_threshold", "max_detections"], sentiment: [] };

const boxes = new Boxes(byId("boxes"), byId("answer"));
const catalogue = new Catalogue(offer);
let given; // {file, name, origin}: the last chosen picture
let asked; // {request, body, answer}: the last answered request
let running = new AbortController();

function task() {
  return document.querySelector('[name="task"]:checked').value;
}

function offer() {
  catalogue.offer(task(), byId("model"));
  catalogue.offerVersions(byId("model").value, byId("version"));
}

function floor() {
  return byId("floor").value === "" ? 0 : Number(byId("floor").value);
}

// The page requests boxes down to a low score, so that the slider needs no new request. The code for copying requests
// only the shown boxes.
function query(route) {
  const model = byId("model").value;
  const found = [];
  if (model !== "" && !catalogue.isDefault(model)) found.push(["model", model]);
  if (byId("version").value !== "") found.push(["version", byId("version").value]);
  if (route === "detect" && byId("floor").value !== "") found.push(["score_threshold", byId("floor").value]);
  for (const name of OPTIONS[route]) {
    if (byId(name).value !== "") found.push([name, byId(name).value]);
  }
  if (route === "detect") {
    const classes = byId("classes").value.split(",").map((name) => name.trim());
    found.push(...classes.filter(Boolean).map((name) => ["classes", name]));
  }
  return found;
}

async function run() {
  const route = task();
  const isText = route === "sentiment";
  if (!isText && given === undefined) {
    say("Choose a picture first, or click on one of the samples.");
    byId("file").focus();
    return;
  }
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const request = { route, query: query(route) };
  if (isText) request.text = byId("text").value;
  else request.file = given;
  const body = isText ? { text: request.text } : { image: given.file };
  begin(request);
  try {
    const { answer, total, spans } = await ask(address(`v1/${route}`, request.query), body, signal);
    asked = { request, body, answer };
    show();
    byId("timing").replaceChildren(...timing(spans, total));
    byId("details").hidden = false;
  } catch (error) {
    if (error.name === "AbortError") return;
    fail(error);
  }
  byId("result").setAttribute("aria-busy", "false");
}

function begin(request) {
  clear();
  byId("result").setAttribute("aria-busy", "true");
  say(`Asking ${byId("model").value}…`);
  if (request.file !== undefined) preview(request.file);
  // On a phone the answer comes below the input.
  if (byId("result").getBoundingClientRect().top > innerHeight * 0.6) byId("result").scrollIntoView();
}

function clear() {
  asked = undefined;
  boxes.clear();
  byId("answer").replaceChildren();
  byId("problem").replaceChildren();
  for (const id of ["figure", "threshold-row", "save", "details"]) byId(id).hidden = true;
}

function preview({ file, name }) {
  const image = byId("picture");
  const figure = byId("figure");
  URL.revokeObjectURL(image.src);
  figure.hidden = false;
  image.hidden = false;
  image.alt = `The picture ${name}`;
  // The gateway may answer a picture that this browser cannot show, such as TIFF: its boxes get a plain background.
  image.onerror = () => (image.hidden = true);
  image.src = URL.createObjectURL(file);
  byId("file-name").textContent = name;
}

function show() {
  const { request, answer } = asked;
  if (answer.image !== undefined) {
    byId("figure").style.setProperty("--ratio", answer.image.width / answer.image.height);
  }
  if (request.route === "detect") {
    boxes.show(answer.image, answer.predictions);
    byId("threshold").min = floor();
    byId("threshold-row").hidden = byId("save").hidden = false;
    filter();
    summarise();
    return;
  }
  const rows = request.route === "classify" ? answer.predictions : answer.scores;
  byId("answer").replaceChildren(bars(rows));
  const usage = answer.usage;
  const tokens = usage ? `; ${usage.tokens} tokens were read${usage.truncated ? ", the rest was cut off" : ""}` : "";
  say(`${rows[0].label}, ${percent(rows[0].score)}${tokens}.`);
  writeCode();
}

function filter() {
  const threshold = Number(byId("threshold").value);
  byId("threshold-value").textContent = threshold.toFixed(2);
  boxes.filter(threshold);
  writeCode();
}

function summarise() {
  const { predictions } = asked.answer;
  const threshold = Number(byId("threshold").value);
  const shown = predictions.filter((prediction) => prediction.score >= threshold);
  const best = shown.length > 0 ? `; best: ${shown[0].label}, ${shown[0].score.toFixed(2)}` : "";
  const count = predictions.length;
  say(`${shown.length} of ${count} ${count === 1 ? "box has" : "boxes have"} a score of ${threshold.toFixed(2)} or more${best}.`);
}

function repeated() {
  const { request } = asked;
  return { ...request, query: request.route === "detect" ? shownQuery() : request.query };
}

function shownQuery() {
  const rest = asked.request.query.filter(([name]) => name !== "score_threshold");
  return [...rest, ["score_threshold", byId("threshold").value]];
}

function writeCode() {
  if (asked === undefined) return;
  const writers = { "tab-curl": curl, "tab-python": httpx, "tab-json": () => JSON.stringify(asked.answer, null, 2) };
  const tab = document.querySelector('[role="tab"][aria-selected="true"]').id;
  byId("code").setAttribute("aria-labelledby", tab);
  byId("code-text").textContent = writers[tab](repeated());
  byId("code-hint").textContent = tab === "tab-json" ? "" : hint(asked.request);
  byId("copied").textContent = "";
}

async function copy() {
  const code = byId("code-text");
  try {
    await navigator.clipboard.writeText(code.textContent);
    byId("copied").textContent = "Copied.";
  } catch {
    // Browsers keep pages without https from the clipboard, except those of localhost.
    getSelection().selectAllChildren(code);
    byId("copied").textContent = "Selected: copy it with Ctrl+C.";
  }
}

async function save() {
  const { request, body } = asked;
  try {
    const link = element("a", { download: `${request.file.name.replace(/\.\w+$/, "")}-boxes.jpg` });
    link.href = URL.createObjectURL(await drawn(address("v1/detect", shownQuery()), body));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    showProblem(error);
  }
}

function say(sentence) {
  byId("status").textContent = sentence;
}

function fail(error) {
  clear();
  say("");
  showProblem(error);
}

function showProblem(error) {
  const problem = error instanceof Problem ? error.fields : { title: "Error in this page", detail: String(error) };
  const names = { status: "Status", code: "Code", request_id: "Request id", model: "Model", step: "Step" };
  const facts = Object.keys(names).filter((name) => problem[name] !== undefined && problem[name] !== null);
  const again = problem.retryable ? " The same request may succeed later." : "";
  byId("problem").replaceChildren(
    element(
      "div",
      { class: "problem" },
      element("h3", {}, problem.title),
      element("p", {}, `${problem.detail}${again}`),
      element("dl", {}, ...facts.flatMap((name) => [element("dt", {}, names[name]), element("dd", {}, String(problem[name]))])),
    ),
  );
}

function choose() {
  const route = task();
  for (const part of document.querySelectorAll("[data-for]")) part.hidden = !part.dataset.for.split(" ").includes(route);
  byId("ask").textContent = VERBS[route];
  offer();
  running.abort();
  byId("result").setAttribute("aria-busy", "false");
  clear();
  if (route === "sentiment") say("Type a text, or click on one of the samples.");
  else if (given !== undefined) run();
  else say("Choose a picture, or click on one of the samples.");
}

for (const radio of document.querySelectorAll('[name="task"]')) radio.addEventListener("change", choose);
byId("input").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
byId("model").addEventListener("change", () => catalogue.offerVersions(byId("model").value, byId("version")));
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
});
for (const button of document.querySelectorAll("[data-text]")) {
  button.addEventListener("click", () => {
    byId("text").value = button.dataset.text;
    run();
  });
}
byId("threshold").addEventListener("input", filter);
byId("threshold").addEventListener("change", summarise);
byId("save").addEventListener("click", save);
byId("copy").addEventListener("click", copy);
tabs(document.querySelector('[role="tablist"]'), writeCode);
picture.listen((chosen) => {
  if (task() === "sentiment") {
    say("This task reads a text. For a picture, pick Classify or Detect.");
    return;
  }
  given = chosen;
  run();
}, fail);
choose();
await catalogue.keepReading();
