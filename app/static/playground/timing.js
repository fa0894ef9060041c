// Where the time went: the server's spans, and the rest of the time that the browser waited.

import { element } from "./element.js";

const MEANING = {
  read: "receiving the body",
  wait: "waiting for a free slot",
  triton: "preprocessing, network, postprocessing",
  encode: "writing the answer",
  rest: "network and browser",
};

export function timing(spans, total) {
  const known = spans.reduce((sum, [, ms]) => sum + ms, 0);
  const rows = [...spans, ["rest", Math.max(0, total - known)]];
  const track = element("div", { class: "track", "aria-hidden": "true" });
  const items = rows.map(([name, ms]) => {
    const part = element("span", { "data-span": name });
    part.style.flexGrow = ms;
    track.append(part);
    return element(
      "li",
      { "data-span": name },
      element("span", { class: "name" }, name),
      element("span", { class: "meaning" }, MEANING[name] ?? ""),
      element("span", { class: "score" }, `${ms.toFixed(1)} ms`),
    );
  });
  const sum = element("p", { class: "caption" }, `${total.toFixed(1)} ms in total, measured in the browser.`);
  return [track, element("ul", { class: "spans" }, ...items), sum];
}
