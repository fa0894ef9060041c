// The served models: their states, and the choice of a model for a task.

import { byId, element } from "./element.js";
import { models, readiness } from "./gateway.js";

const TASKS = { classify: "image-classification", detect: "object-detection", sentiment: "text-classification" };
const STATES = { ready: "ready", not_ready: "not ready", unsupported: "cannot be served" };
const EVERY_MS = 10_000;

export class Catalogue {
  #models = [];
  #shown = "";
  #changed;

  // changed() is called whenever the list of models has changed.
  constructor(changed) {
    this.#changed = changed;
  }

  async keepReading() {
    try {
      if (!document.hidden) await Promise.all([this.#read(), this.#readReadiness()]);
    } finally {
      setTimeout(() => this.keepReading(), EVERY_MS);
    }
  }

  // Fill the select with a task's models; keep the picked one if it is still there.
  offer(task, select) {
    const picked = select.value;
    const fitting = this.#models.filter((model) => model.task === TASKS[task]);
    const options = fitting.map((model) => {
      const disabled = model.state !== "ready";
      const notes = [model.default ? "default" : "", disabled ? STATES[model.state] : ""].filter(Boolean).join(", ");
      return element("option", { value: model.name, disabled }, notes ? `${model.name} (${notes})` : model.name);
    });
    if (fitting.length === 0) options.push(element("option", { value: "" }, "none is served"));
    select.replaceChildren(...options);
    const chosen =
      fitting.find((model) => model.name === picked && model.state === "ready") ??
      fitting.find((model) => model.default) ??
      fitting.find((model) => model.state === "ready");
    if (chosen !== undefined) select.value = chosen.name;
  }

  offerVersions(name, select) {
    const versions = this.#find(name)?.versions ?? [];
    const newest = element("option", { value: "" }, "newest");
    select.replaceChildren(newest, ...versions.map((version) => element("option", { value: version }, version)));
  }

  isDefault(name) {
    return this.#find(name)?.default ?? false;
  }

  #find(name) {
    return this.#models.find((model) => model.name === name);
  }

  async #read() {
    const status = byId("catalogue-status");
    try {
      this.#models = await models();
      status.textContent = this.#models.length === 0 ? "No model is served." : "";
    } catch (error) {
      status.textContent = `The list may be out of date. ${error.message}`;
    }
    const now = JSON.stringify(this.#models);
    if (now === this.#shown) return;
    this.#shown = now;
    byId("models").replaceChildren(...this.#models.map(card));
    this.#changed();
  }

  async #readReadiness() {
    const pill = byId("readiness");
    let [state, text] = ["unknown", "No answer"];
    try {
      const { status, reason, models: health } = await readiness();
      const failing = (health ?? []).filter((model) => !model.ready).map((model) => model.model);
      state = status;
      text = status === "ready" ? "Ready" : `Not ready: ${reason ?? failing.join(", ")}`;
    } catch {
      // The pill shows "No answer".
    }
    pill.dataset.state = state;
    if (pill.textContent !== text) pill.textContent = text;
  }
}

function card(model) {
  const facts = {
    Task: model.task,
    Versions: model.versions.join(", "),
    "Largest batch": String(model.max_batch_size),
    Steps: model.steps.map((step) => step.replace(`${model.name}_`, "")).join(", "),
  };
  const rows = Object.entries(facts).filter(([, value]) => value !== "");
  return element(
    "li",
    { "data-model": model.name },
    element("h3", {}, model.name),
    element("span", { class: "pill", "data-state": model.state }, STATES[model.state]),
    ...(model.default ? [element("span", { class: "pill" }, "default")] : []),
    ...(model.reason ? [element("p", { class: "reason" }, model.reason)] : []),
    element("dl", {}, ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
  );
}
