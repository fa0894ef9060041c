// Labels and their scores as bars, in the order of the rows.

import { element } from "./element.js";

export function percent(score) {
  return `${(score * 100).toFixed(1)} %`;
}

// rows: [{label, score}]
export function bars(rows) {
  const items = rows.map((row) => {
    const bar = element("div", { class: "bar", "data-label": row.label }, element("span"));
    bar.firstChild.style.inlineSize = `${row.score * 100}%`;
    return element(
      "li",
      {},
      element("span", { class: "name" }, row.label),
      element("span", { class: "score" }, percent(row.score)),
      bar,
    );
  });
  return element("ol", { class: "bars" }, ...items);
}
