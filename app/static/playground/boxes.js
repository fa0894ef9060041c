// Detections: boxes over the picture and rows beside it. Pointing at a box highlights its row, and the other way round.

import { element, shape } from "./element.js";

// The picture answer's colours (app/drawing/marks.py), and the one on which text must be white.
const COLOURS = [
  ...["#ff645f", "#07e4be", "#b243ba", "#9ca903", "#a8c4fe", "#b85f05"],
  ...["#0db3c1", "#ffa5c8", "#019427", "#a884ff", "#f6ba00", "#0584b8"],
];
const NEEDS_WHITE = "#b243ba";

function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
}

export class Boxes {
  #svg;
  #list;
  #marks = [];

  constructor(svg, list) {
    this.#svg = svg;
    this.#list = list;
    // Text and lines keep their size on the screen, whatever the picture's size is.
    new ResizeObserver(() => this.#scale()).observe(svg);
  }

  clear() {
    this.#svg.replaceChildren();
    this.#list.replaceChildren();
    this.#marks = [];
  }

  // size: {width, height} of the upright picture; predictions: as /v1/detect answers them.
  show(size, predictions) {
    this.clear();
    this.#svg.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    this.#marks = predictions.map((prediction) => this.#mark(prediction));
    const area = ({ box }) => (box.xmax - box.xmin) * (box.ymax - box.ymin);
    // Smaller boxes are drawn later, so that the pointer reaches them.
    const bySize = [...this.#marks].sort((one, other) => area(other.prediction) - area(one.prediction));
    this.#svg.append(...bySize.map((mark) => mark.group));
    this.#list.append(element("ol", { class: "rows" }, ...this.#marks.map((mark) => mark.row)));
    this.#scale();
  }

  // Show the predictions with that score or more.
  filter(threshold) {
    for (const { prediction, group, row } of this.#marks) {
      const visible = prediction.score >= threshold;
      group.toggleAttribute("hidden", !visible);
      row.hidden = !visible;
    }
    this.#scale(); // only visible elements can be measured
  }

  #mark(prediction) {
    const { label, score, class_id, box } = prediction;
    const colour = COLOURS[Math.abs(class_id) % COLOURS.length];
    const place = { x: box.xmin, y: box.ymin, width: box.xmax - box.xmin, height: box.ymax - box.ymin };
    const plate = shape("rect", { class: "plate" });
    const text = shape("text", {}, `${label} ${score.toFixed(2)}`);
    const rim = shape("rect", { class: "rim", ...place });
    const outline = shape("rect", { class: "box", ...place });
    const ink = colour === NEEDS_WHITE ? "white" : "black";
    const group = shape("g", { "data-ink": ink }, rim, outline, plate, text);
    const sides = [box.xmin, box.ymin, box.xmax, box.ymax].map((side) => side.toFixed(0));
    const button = element(
      "button",
      { type: "button" },
      element("span", { class: "swatch", "aria-hidden": "true" }),
      element("span", { class: "name" }, label),
      element("span", { class: "place" }, `${sides[0]}, ${sides[1]} to ${sides[2]}, ${sides[3]}`),
      element("span", { class: "score" }, score.toFixed(2)),
    );
    const row = element("li", {}, button);
    for (const node of [group, row]) {
      node.style.setProperty("--colour", colour);
      node.addEventListener("pointerenter", () => this.#light(group, row, true));
      node.addEventListener("pointerleave", () => this.#light(group, row, false));
    }
    button.addEventListener("focus", () => this.#light(group, row, true));
    button.addEventListener("blur", () => this.#light(group, row, false));
    return { prediction, group, row, plate, text };
  }

  #light(group, row, on) {
    group.classList.toggle("lit", on);
    row.classList.toggle("lit", on);
    this.#svg.classList.toggle("one-lit", on);
  }

  #scale() {
    const size = this.#svg.viewBox.baseVal;
    if (this.#svg.clientWidth === 0 || size === null) return;
    const pixel = size.width / this.#svg.clientWidth;
    for (const { prediction, row, plate, text } of this.#marks) {
      if (row.hidden) continue;
      const { xmin, ymin } = prediction.box;
      text.setAttribute("font-size", 13 * pixel);
      const [width, height] = [text.getComputedTextLength() + 8 * pixel, 18 * pixel];
      // Above the box where there is room, and never beyond the picture.
      const x = Math.max(0, Math.min(xmin, size.width - width));
      const y = ymin >= height ? ymin - height : ymin;
      set(plate, { x, y, width, height });
      set(text, { x: x + 4 * pixel, y: y + 13 * pixel });
    }
  }
}
