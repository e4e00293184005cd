"use strict";
(async () => {
const data = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C", "#7F3C8D",
  "#8C564B"]; // those of the figures, and four more
const REACH = 3; // sliders go from -3 to 3

// The decoder: values are Float32Arrays, value 0 the latents; vae_sweep/training/export.py writes the operations.

function halves(base64) {
  const bytes = atob(base64), floats = new Float32Array(bytes.length / 2);
  for (let i = 0; i < floats.length; i++) {
    const half = bytes.charCodeAt(2 * i) | bytes.charCodeAt(2 * i + 1) << 8;
    const exponent = half >> 10 & 31, fraction = half & 1023;
    const size = exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction;
    floats[i] = half >> 15 ? -size : size;
  }
  return floats;
}

function linear(operation, [x], w, b) {
  const out = Float32Array.from(b), n = x.length;
  for (let i = 0, at = 0; i < out.length; i++) {
    let sum = 0;
    for (let j = 0; j < n; j++) sum += w[at++] * x[j];
    out[i] += sum;
  }
  return out;
}

function conv(operation, [x], w, b) {
  const {in: [channels, height, width], kernel: [made, , kh, kw], stride: [sy, sx], padding: [py, px]} = operation;
  const h = Math.floor((height + 2 * py - kh) / sy) + 1, wide = Math.floor((width + 2 * px - kw) / sx) + 1;
  const out = new Float32Array(made * h * wide);
  for (let m = 0, at = 0; m < made; m++) for (let i = 0; i < h; i++) for (let j = 0; j < wide; j++, at++) {
    let sum = b[m];
    for (let c = 0; c < channels; c++) for (let k = 0; k < kh; k++) {
      const y = i * sy - py + k;
      if (y < 0 || y >= height) continue;
      for (let l = 0; l < kw; l++) {
        const u = j * sx - px + l;
        if (u >= 0 && u < width) sum += x[(c * height + y) * width + u] * w[((m * channels + c) * kh + k) * kw + l];
      }
    }
    out[at] = sum;
  }
  return out;
}

function convTranspose(operation, [x], w, b) {
  const {in: [channels, height, width], kernel: [, made, kh, kw], stride: [sy, sx]} = operation;
  const {padding: [py, px], more: [my, mx]} = operation;
  const h = (height - 1) * sy - 2 * py + kh + my, wide = (width - 1) * sx - 2 * px + kw + mx;
  const out = new Float32Array(made * h * wide);
  for (let m = 0; m < made; m++) out.fill(b[m], m * h * wide, (m + 1) * h * wide);
  for (let c = 0, at = 0; c < channels; c++) for (let i = 0; i < height; i++) for (let j = 0; j < width; j++, at++) {
    const value = x[at];
    if (value === 0) continue; // half of what a ReLU leaves
    for (let m = 0; m < made; m++) for (let k = 0; k < kh; k++) {
      const y = i * sy - py + k;
      if (y < 0 || y >= h) continue;
      const row = (m * h + y) * wide, weights = ((c * made + m) * kh + k) * kw;
      for (let l = 0; l < kw; l++) {
        const u = j * sx - px + l;
        if (u >= 0 && u < wide) out[row + u] += value * w[weights + l];
      }
    }
  }
  return out;
}

function erf(x) { // Abramowitz & Stegun 1964, 7.1.26: within 1.5e-7
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
}

const sigmoid = v => 1 / (1 + Math.exp(-v));
const each = f => (operation, [x]) => x.map(f);
const both = f => (operation, [x, y], w) => {
  const other = y || w;
  return x.map(other.length === 1 ? v => f(v, other[0]) : (v, i) => f(v, other[i]));
};
const RUN = {
  linear, conv, conv_transpose: convTranspose,
  gather: ({index}, [x]) => Float32Array.from(index, i => x[i]),
  relu: each(v => v > 0 ? v : 0), sigmoid: each(sigmoid), tanh: each(Math.tanh),
  gelu: each(v => 0.5 * v * (1 + erf(v / Math.SQRT2))), silu: each(v => v * sigmoid(v)),
  add: both((v, u) => v + u), sub: both((v, u) => v - u), mul: both((v, u) => v * u), div: both((v, u) => v / u),
};

function decode(program, z) {
  program.floats = program.floats || halves(program.weights);
  const weights = given => given && program.floats.subarray(given[0], given[0] + given[1]);
  const values = [z];
  for (const operation of program.operations) {
    const taken = operation.x.map(index => values[index]);
    values.push(RUN[operation.f](operation, taken, weights(operation.w), weights(operation.b)));
  }
  return values.at(-1);
}

// Pictures

async function load(sheet) {
  if (!sheet.image) {
    sheet.image = new Image();
    sheet.image.src = sheet.src;
    await sheet.image.decode();
  }
}

function drawFrame(canvas, sheet, index) {
  const {columns, width, height} = sheet;
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").drawImage(
    sheet.image, index % columns * width, Math.floor(index / columns) * height, width, height, 0, 0, width, height);
}

function drawImage(canvas, values, [channels, height, width]) {
  canvas.width = width;
  canvas.height = height;
  const pixels = new ImageData(width, height), plane = height * width;
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) {
      pixels.data[4 * i + c] = 255 * values[channels === 3 ? c * plane + i : i]; // is clamped and rounded
    }
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// Where to go: {kind: "slider", j, value}, {kind: "walk", a, b, t}, {kind: "map", x, y}, {kind: "prior"} or
// {kind: "reset"}

function normal() { // Box & Muller 1958
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

function latents(model, before, to) {
  const {center, axes} = model.map;
  if (to.kind === "slider") return before.map((v, k) => k === model.top[to.j].latent ? to.value : v);
  return Float32Array.from({length: model.latents}, (_, k) => {
    if (to.kind === "walk") return (1 - to.t) * model.walk[to.a][k] + to.t * model.walk[to.b][k];
    if (to.kind === "map") return center[k] + to.x * axes[0][k] + to.y * axes[1][k];
    if (to.kind === "prior") return normal();
    return 0;
  });
}

function frame(model, to) { // in the order of _Frames in vae_sweep/report/explore.py
  const {steps, prior} = model.frames, images = model.walk.length;
  const near = share => Math.round(Math.min(Math.max(share, 0), 1) * (steps - 1));
  if (to.kind === "slider") return to.j * steps + near((to.value + REACH) / (2 * REACH));
  const walks = model.top.length * steps, map = walks + images * (images - 1) / 2 * steps, draws = map + steps * steps;
  if (to.kind === "walk" && to.a !== to.b) {
    const low = Math.min(to.a, to.b), high = Math.max(to.a, to.b);
    const pair = low * images - low * (low + 1) / 2 + high - low - 1;
    return walks + pair * steps + near(to.a === low ? to.t : 1 - to.t);
  }
  const place = value => near((value / model.map.extent + 1) / 2);
  if (to.kind === "map") return map + place(to.y) * steps + place(to.x);
  if (to.kind === "prior") return draws + Math.floor(Math.random() * prior);
  return draws + prior;
}

function words(model, to) {
  if (to.kind === "slider") return `latent ${model.top[to.j].latent} moved`;
  if (to.kind === "walk" && to.t % 1) return `${Math.round(100 * to.t)} % of the way between the test images`;
  if (to.kind === "walk") return `${to.t ? "second" : "first"} test image, encoded and decoded`;
  return {map: "a point of the map", prior: "a draw from the prior", reset: "all latents 0"}[to.kind];
}

const project = ({center, axes}, z) =>
  axes.map(axis => axis.reduce((sum, weight, k) => sum + weight * (z[k] - center[k]), 0));

// One of the two models

class Panel {
  constructor() {
    this.root = document.getElementById("panel").content.firstElementChild.cloneNode(true);
    this.of = selector => this.root.querySelector(selector);
    this.of("select").addEventListener("change", event => this.choose(event.target.selectedIndex));
    const map = this.of(".map");
    const point = event => {
      const box = map.getBoundingClientRect(), extent = this.model.map.extent;
      const x = 2 * (event.clientX - box.left) / box.width - 1, y = 1 - 2 * (event.clientY - box.top) / box.height;
      this.go({kind: "map", x: x * extent, y: y * extent});
    };
    map.addEventListener("pointerdown", point);
    map.addEventListener("pointermove", event => event.buttons & 1 && point(event));
    map.addEventListener("keydown", event => {
      const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key];
      if (!step) return;
      event.preventDefault();
      const {extent} = this.model.map, stride = extent / (this.model.frames ? (this.model.frames.steps - 1) / 2 : 20);
      const [x, y] = this.at.map((value, i) => Math.min(Math.max(value + step[i] * stride, -extent), extent));
      this.go({kind: "map", x, y});
    });
  }

  offer(models, index) {
    this.models = models;
    this.of("select").replaceChildren(...models.map(model => new Option(model.title)));
    this.of("select").selectedIndex = index;
    return this.choose(index);
  }

  async choose(index) {
    const model = this.models[index];
    if (model.frames) await load(model.frames);
    this.model = model;
    this.z = new Float32Array(model.latents);
    this.root.setAttribute("aria-label", model.title);
    this.of(".title").textContent = model.title;
    this.of(".loss").textContent = model.loss;
    const share = `${Math.round(100 * model.map.share)} % of their variance`;
    const map = `first two principal components of the posterior means: ${share}`;
    this.of(".map").title = map;
    this.of(".map").setAttribute("aria-label", `Map of ${model.title}: ${map}. Arrow keys move the cross.`);
    this.of("legend").textContent = "Latents of most KL (nats)";
    const why = model.frames && `Pictures decoded beforehand, one slider at a time: ${model.frames.reason}.`;
    this.of(".why").textContent = why || "";
    this.sliders = model.top.map(({latent, kl}, j) => this.slider(latent, kl, j));
    this.of(".sliders").replaceChildren(this.of("legend"), ...this.sliders.map(slider => slider.label));
    this.go(walked());
  }

  slider(latent, kl, j) {
    const [label, input, name, small, output] = ["label", "input", "span", "small", "span"]
      .map(tag => document.createElement(tag));
    small.textContent = ` KL ${kl.toFixed(2)}`;
    name.append(`latent ${latent}`, small);
    output.className = "value";
    const step = this.model.frames ? 2 * REACH / (this.model.frames.steps - 1) : 0.05;
    Object.assign(input, {type: "range", min: -REACH, max: REACH, step});
    input.addEventListener("input", () => this.go({kind: "slider", j, value: input.valueAsNumber}));
    label.append(name, output, input);
    return {label, input, output};
  }

  go(to) {
    const {model} = this;
    let values;
    if (model.frames) {
      const index = frame(model, to);
      drawFrame(this.of(".picture"), model.frames, index);
      this.at = model.frames.at[index];
      values = model.frames.sliders[index];
    } else {
      this.z = latents(model, this.z, to);
      drawImage(this.of(".picture"), decode(model.program, this.z), model.shape);
      this.at = project(model.map, this.z);
      values = model.top.map(({latent}) => this.z[latent]);
    }
    this.sliders.forEach(({input, output}, j) => {
      if (!(to.kind === "slider" && to.j === j)) input.value = values[j];
      output.textContent = (Math.round(100 * values[j]) / 100 || 0).toFixed(2).replace("-", "\u2212");
    });
    this.of(".said").value = words(model, to);
    this.of(".picture").setAttribute("aria-label", `decoded by ${model.title}: ${words(model, to)}`);
    this.drawMap();
  }

  drawMap() {
    const {map} = this.model, canvas = this.of(".map"), {labels, classes} = shown();
    const side = Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)) || 300;
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d"), unit = side / 300;
    const place = ([x, y]) => [(x / map.extent + 1) / 2 * side, (1 - y / map.extent) / 2 * side];
    const distances = map.points.map(([x, y]) => (x - this.at[0]) ** 2 + (y - this.at[1]) ** 2);
    const nearest = distances.indexOf(Math.min(...distances));
    map.points.forEach((point, i) => {
      context.fillStyle = coloured() ? COLOURS[labels[i]] : COLOURS[0];
      context.globalAlpha = 0.75;
      context.beginPath();
      context.arc(...place(point), 3 * unit, 0, 7);
      context.fill();
    });
    context.globalAlpha = 1;
    context.strokeStyle = "#1b1b1a";
    context.lineWidth = 1.5 * unit;
    context.setLineDash([4 * unit, 3 * unit]);
    context.beginPath();
    for (const end of [from, to]) context.lineTo(...place(project(map, this.model.walk[end])));
    context.stroke();
    context.setLineDash([]);
    const [x, y] = place(this.at.map(value => Math.min(Math.max(value, -map.extent), map.extent))), arm = 9 * unit;
    for (const [width, colour] of [[6, "#fff"], [2.5, "#1b1b1a"]]) {
      context.lineWidth = width * unit;
      context.strokeStyle = colour;
      context.beginPath();
      context.moveTo(x - arm, y); context.lineTo(x + arm, y);
      context.moveTo(x, y - arm); context.lineTo(x, y + arm);
      context.stroke();
    }
    drawFrame(this.of(".nearest canvas"), shown(), nearest);
    const label = classes.length ? `: ${classes[labels[nearest]]}` : "";
    this.of(".nearest span").textContent = `nearest test image on the map${label}`;
  }
}

// What the two share

const panels = data.models.slice(0, 2).map(() => new Panel());
const element = id => document.getElementById(id);
let group = 0, from = 0, to = 1;

const shown = () => data.pictures[group];
const coloured = () => shown().classes.length > 0 && shown().classes.length <= COLOURS.length;
const walks = () => shown().walk.length > 1;
const walked = () => walks() ? {kind: "walk", a: from, b: to, t: element("walk").valueAsNumber} : {kind: "reset"};
const everywhere = to => panels.forEach(panel => panel.model && panel.go(to));

function drawEnds() {
  for (const [id, end] of [["from", from], ["to", to]]) {
    const image = shown().walk[end], label = shown().classes[shown().labels[image]];
    drawFrame(element(id).firstElementChild, shown(), image);
    const name = `${id === "from" ? "first" : "second"} test image${label ? ` (${label})` : ""}`;
    element(id).setAttribute("aria-label", `${name}: another one`);
  }
}

function another(id) {
  const n = shown().walk.length;
  const next = (end, other) => (end + 1) % n === other ? (end + 2) % n : (end + 1) % n;
  if (id === "from") from = next(from, to); else to = next(to, from);
  element("walk").value = id === "from" ? 0 : 1;
  drawEnds();
  everywhere(walked());
}

async function show(index) {
  group = index;
  from = 0;
  to = walks() ? 1 : 0;
  document.querySelector(".walk").hidden = !walks();
  await load(shown());
  drawEnds();
  const names = shown().classes.map((name, i) => {
    const span = document.createElement("span"), dot = document.createElement("i");
    dot.style.background = COLOURS[i];
    span.append(dot, name);
    return span;
  });
  element("classes").replaceChildren("Map: a dot for each test image.", ...(coloured() ? names : []));
  element("classes").hidden = false;
  const models = data.models.filter(model => model.pictures === group);
  await Promise.all(panels.map((panel, i) => panel.offer(models, Math.min(i, models.length - 1))));
}

element("panels").append(...panels.map(panel => panel.root));
element("images").replaceChildren(...data.pictures.map(pictures => new Option(pictures.name)));
element("images").parentElement.hidden = data.pictures.length < 2;
element("images").addEventListener("change", event => show(event.target.selectedIndex));
element("walk").addEventListener("input", () => everywhere(walked()));
for (const id of ["from", "to"]) element(id).addEventListener("click", () => another(id));
element("prior").addEventListener("click", () => everywhere({kind: "prior"}));
element("reset").addEventListener("click", () => everywhere({kind: "reset"}));
window.addEventListener("resize", () => panels.forEach(panel => panel.model && panel.drawMap()));
await show(0);
document.documentElement.dataset.ready = "";
})();
