"use strict";
const one = (selector) => document.querySelector(selector);
const body = one("tbody"), dialog = one("dialog"), heads = [...document.querySelectorAll("thead th")];
const places = [...document.querySelectorAll(".place")];

// The table.

function key(row, column) {
  const cell = row.cells[column], sort = cell.dataset.sort;
  return sort === undefined ? cell.textContent : sort === "" ? null : Number(sort);
}

function sortBy(column) {
  const head = heads[column], number = head.classList.contains("number");
  const before = head.getAttribute("aria-sort");
  const ascending = before ? before === "descending" : !number;  // of volumes, the largest come first
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const names = new Intl.Collator(undefined, { numeric: true });
  const rows = [...body.rows].map((row) => [key(row, column), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);  // empty cells are last, either way
    const order = typeof a === "string" ? names.compare(a, b) : a - b;
    return ascending ? order : -order;
  });
  body.append(...rows.map(([, row]) => row));
}

function filter() {
  const text = one("#find").value.trim().toLowerCase(), verdict = one("#only").value;
  let count = 0;
  for (const row of body.rows) {
    const words = `${row.cells[1].textContent} ${row.cells[3].textContent}`.toLowerCase();
    row.hidden = !words.includes(text) || (verdict !== "" && row.dataset.verdict !== verdict);
    count += !row.hidden;
  }
  one("#shown").textContent = count === body.rows.length ? "" : `${count} shown`;
}

heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => sortBy(column)));
one("form").addEventListener("submit", (event) => event.preventDefault());
one("#find").addEventListener("input", filter);
one("#only").addEventListener("change", filter);
body.addEventListener("click", (event) => {
  const button = event.target.closest(".open");
  if (button) open(button.closest("tr"));
});

// A case.

let current = null, viewer = null, map = null, labels = [];
const waiting = new Map();  // from a script of a volume to who asked for it
window.viscera = (volume) => waiting.get(document.currentScript)?.(volume);  // what each volume.js calls

function neighbour(step) {
  const rows = [...body.rows].filter((row) => !row.hidden && row.querySelector(".open"));
  return rows[rows.indexOf(current) + step];
}

async function open(row) {
  current = row;
  const button = row.querySelector(".open"), folder = button.dataset.folder, picture = one("#picture");
  one("#title").textContent = row.cells[1].textContent;
  one("#remarks").innerHTML = row.cells[3].innerHTML;
  one("#viewer").hidden = true;
  one("#choose").hidden = true;
  one("#previous").disabled = !neighbour(-1);
  one("#next").disabled = !neighbour(1);
  picture.src = folder ? `${folder}picture.png` : button.firstChild.src;
  picture.alt = button.dataset.alt;
  if (!dialog.open) dialog.showModal();
  if (folder === undefined) return ask("Names are hidden, so that this page does not know where the volume is.");
  say("The volume is being opened.");
  try {
    const volume = await load(`${folder}volume.js`);
    if (current === row) await show(volume);
  } catch (error) {
    if (current === row) ask(error.message);
  }
}

function load(address) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    waiting.set(script, resolve);
    script.onerror = () => reject(new Error(`${decodeURI(address)} is not beside this page.`));
    script.onload = () => { waiting.delete(script); script.remove(); };
    script.src = address;
    document.head.append(script);
  });
}

function say(text) { one("#note").textContent = text; }

function ask(text) {
  say(text);
  one("#choose").hidden = false;
}

one("#choose input").addEventListener("change", async (event) => {
  try {
    const text = await event.target.files[0].text();
    await show(JSON.parse(text.slice(text.indexOf("(") + 1, text.lastIndexOf(")"))));
  } catch (error) {
    say(`This file cannot be shown: ${error.message}`);
  }
  event.target.value = "";
});
one("#previous").addEventListener("click", () => open(neighbour(-1)));
one("#next").addEventListener("click", () => open(neighbour(1)));
one("#close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  current?.querySelector(".open").focus();
  current = null;
});

// The viewer.

async function start() {
  const packed = Uint8Array.from(atob(one("#niivue").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  if (!one("#canvas").getContext("webgl2")) throw new Error("This browser has no WebGL 2: there is the picture only.");
  const made = new niivue.Niivue({
    isRadiologicalConvention: true, sagittalNoseLeft: true, dragAndDropEnabled: false, crosshairColor: [1, 1, 1, 0.5],
    crosshairWidth: 0.5, multiplanarForceRender: true, logLevel: "error",
    onLocationChange: moved, onIntensityChange: (scan) => tellWindow(scan.cal_min, scan.cal_max),
  });
  await made.attachToCanvas(one("#canvas"));
  return made;
}

async function show(volume) {
  const of = current;
  one("#viewer").hidden = false;  // the canvas must have its size
  try {
    viewer ??= await start();
  } catch (error) {
    one("#viewer").hidden = true;
    throw error;
  }
  const { NVImage } = niivue, opacity = Number(one("#opacity").value);
  const scan = await NVImage.loadFromBase64({ base64: volume.scan, name: "scan.nii.gz", colormap: "gray" });
  const loaded = await NVImage.loadFromBase64({ base64: volume.map, name: "labels.nii.gz", opacity });
  if (current !== of) return;
  one("#choose").hidden = true;
  [scan.cal_min, scan.cal_max] = volume.window;
  [map, labels] = [loaded, volume.labels];
  while (viewer.volumes.length) viewer.removeVolumeByIndex(viewer.volumes.length - 1);
  listLabels();
  colour();
  viewer.addVolume(scan);
  viewer.addVolume(map);
  viewer.setSliceType(Number(one("#planes").value));
  go(labels[0]?.[3]);
  setWindow(...volume.window);
  const means = volume.block.some((step) => step > 1) ? `Each voxel here is the mean of ${volume.block.join(" x ")}. ` : "";
  say(`${means}Drag with the right button to change the window, turn the wheel to go through the slices.`);
}

// In the colours of the table; what is not ticked is clear.
function colour() {
  const boxes = [...document.querySelectorAll("#labels input")];
  const shown = labels.map(([value, , rgb], at) => [value, ...rgb, boxes[at].checked ? 255 : 0]);
  const [I, R, G, B, A] = [0, 1, 2, 3, 4].map((part) => [0, ...shown.map((one) => one[part])]);
  map.setColormapLabel({ I, R, G, B, A, labels: ["", ...labels.map((one) => one[1])] });
}

function listLabels() {
  one("#labels").replaceChildren(...labels.map(([, name, rgb, place]) => {
    const item = document.createElement("li"), label = document.createElement("label");
    const box = document.createElement("input"), swatch = document.createElement("span");
    const button = document.createElement("button");
    Object.assign(box, { type: "checkbox", checked: true, onchange: () => { colour(); viewer.updateGLVolume(); } });
    swatch.className = "swatch";
    swatch.style.background = `rgb(${rgb})`;
    label.append(box, swatch, name);
    Object.assign(button, { type: "button", textContent: "Go to", disabled: !place, onclick: () => go(place) });
    button.setAttribute("aria-label", `Go to ${name}`);
    item.append(label, button);
    return item;
  }));
}

function go(place) {
  if (!place) return;
  viewer.scene.crosshairPos = viewer.mm2frac(place);
  viewer.drawScene();
  viewer.createOnLocationChange();
}

function moved(where) {
  places.forEach((slider, axis) => { slider.value = viewer.scene.crosshairPos[axis]; });
  const [right, front, head] = where.mm, found = labels.find(([value]) => value === where.values[1]?.value);
  const sides = `${side(right, "R", "L")}, ${side(front, "A", "P")}, ${side(head, "S", "I")} mm`;
  one("#where").textContent = `${sides}: ${Math.round(where.values[0].value)}${found ? `, ${found[1]}` : ""}`;
}

function side(mm, one, other) { return `${mm < 0 ? other : one} ${Math.abs(mm).toFixed(0)}`; }

function setWindow(low, high) {
  const scan = viewer.volumes[0];
  if (!(low < high)) return;
  [scan.cal_min, scan.cal_max] = [low, high];
  tellWindow(low, high);
  viewer.updateGLVolume();
}

function tellWindow(low, high) {
  [one("#low").value, one("#high").value] = [Math.round(low), Math.round(high)];
  const preset = `${low} ${high}`, choice = one("#preset");
  choice.value = [...choice.options].some((option) => option.value === preset) ? preset : "";
}

places.forEach((slider, axis) => slider.addEventListener("input", () => {
  viewer.scene.crosshairPos[axis] = Number(slider.value);
  viewer.drawScene();
  viewer.createOnLocationChange();
}));
one("#planes").addEventListener("change", (event) => viewer.setSliceType(Number(event.target.value)));
one("#preset").addEventListener("change", (event) => {
  if (event.target.value) setWindow(...event.target.value.split(" ").map(Number));
});
["#low", "#high"].forEach((id) => one(id).addEventListener("change", () => {
  setWindow(Number(one("#low").value), Number(one("#high").value));
}));
one("#opacity").addEventListener("input", (event) => viewer.setOpacity(1, Number(event.target.value)));
