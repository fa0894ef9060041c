// The ways to give a picture: choose, photograph, drop or paste one, or click on a sample.

import { byId } from "./element.js";
import { sample } from "./gateway.js";

// Calls given({file, name, origin}) with origin "file", "pasted" or "sample", or failed(error).
export function listen(given, failed) {
  let newest = 0; // counts choices: a sample that loads slowly must not replace a later choice
  const choose = (picture) => {
    newest += 1;
    given(picture);
  };
  for (const id of ["file", "camera"]) {
    byId(id).addEventListener("change", (event) => {
      const [file] = event.target.files;
      event.target.value = ""; // otherwise choosing the same file again would fire no event
      if (file !== undefined) choose({ file, name: file.name, origin: "file" });
    });
  }
  const drop = byId("drop");
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) drop.classList.remove("over");
  });
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    drop.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file !== undefined) choose({ file, name: file.name, origin: "file" });
  });
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (file === undefined) return;
    event.preventDefault();
    choose({ file, name: `picture.${file.type.split("/")[1] ?? "png"}`, origin: "pasted" });
  });
  for (const button of document.querySelectorAll("[data-sample]")) {
    const name = button.dataset.sample;
    button.addEventListener("click", () => {
      const mine = (newest += 1);
      sample(name).then((file) => mine === newest && choose({ file, name, origin: "sample" }), failed);
    });
  }
}
