"use strict";
const find = (id) => document.getElementById(id);
const files = { x: null, y: null };
let url = null;

function choose(name, file) {
  files[name] = file;
  const shown = find(`shown-${name}`);
  URL.revokeObjectURL(shown.src);
  shown.src = URL.createObjectURL(file);
}

for (const name of ["x", "y"]) {
  const target = find(`drop-${name}`);
  find(name).addEventListener("change", (event) => {
    if (event.target.files.length) choose(name, event.target.files[0]);
  });
  for (const kind of ["dragenter", "dragover"]) {
    target.addEventListener(kind, (event) => {
      event.preventDefault();
      target.classList.add("over");
    });
  }
  target.addEventListener("dragleave", () => target.classList.remove("over"));
  target.addEventListener("drop", (event) => {
    event.preventDefault();
    target.classList.remove("over");
    if (!event.dataTransfer.files.length) return;
    find(name).files = event.dataTransfer.files; // shows the name of the file
    choose(name, event.dataTransfer.files[0]);
  });
}

function describeSources() {
  const roles = find("bundle").selectedOptions[0].dataset;
  for (const name of ["x", "y"]) find(`role-${name}`).textContent = `${name}, ${roles[name]}`;
}

find("bundle").addEventListener("change", describeSources);
describeSources();

function show(text, isError) {
  find("message").textContent = text;
  find("message").classList.toggle("error", isError);
  if (isError) for (const id of ["link", "fused"]) find(id).hidden = true; // the result of an earlier request
}

find("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!files.x || !files.y) return show("Choose both images.", true);
  const body = new FormData();
  for (const name of ["x", "y"]) body.append(name, files[name]);
  for (const name of ["bundle", "scale", "shift", "format"]) {
    if (find(name).value) body.append(name, find(name).value);
  }
  show("Fusing ...", false);
  try {
    const start = performance.now();
    const response = await fetch("v1/fuse", { method: "POST", body });
    if (!response.ok) return show((await response.json()).error, true);
    const image = await response.blob();
    if (url) URL.revokeObjectURL(url);
    url = URL.createObjectURL(image);
    find("fused").src = url;
    find("fused").hidden = image.type === "image/tiff"; // which browsers do not show
    find("link").href = url;
    find("link").download = `fused.${find("format").value}`;
    find("link").hidden = false;
    show(`Fused in ${Math.round(performance.now() - start)} ms.`, false);
  } catch (error) {
    show(`The service cannot be reached (${error.message}).`, true);
  }
});
