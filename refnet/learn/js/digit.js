/* Chapter 1: draw a digit, see it brought to 8 x 8 levels, what both networks say, and every feature map. */

import { brief, byId, element, largestOf, layout, paint, shortest, where } from "./draw.js";
import { choose, chosen, digits, follow, networks, state, take, valueOf } from "./state.js";

const SIDE = 32; // of the drawing, in dots; 4 x 4 of them make a pixel, as in the data set
const ink = new Uint8Array(SIDE * SIDE);
let cursor = [3, 3]; // of the keyboard, in pixels of the 8 x 8 form

/** How many dots of each 4 x 4 block are inked: 0 to 16. @returns {number[][]} */
function counted() {
  const levels = Array.from({ length: 8 }, () => new Array(8).fill(0));
  ink.forEach((dot, at) => (levels[Math.floor(at / SIDE) >> 2][(at % SIDE) >> 2] += dot));
  return levels;
}

/** Inks a round spot. @param {number} x @param {number} y in dots */
function spot(x, y) {
  for (let i = 0; i < SIDE; i++) {
    for (let j = 0; j < SIDE; j++) if ((j + 0.5 - x) ** 2 + (i + 0.5 - y) ** 2 < 3.6) ink[i * SIDE + j] = 1;
  }
}

let waiting = false;
/** Takes the drawing at the next frame: a pointer may move more often than the networks can run. */
function takeSoon() {
  paint(byId("drawing"), ink, SIDE, SIDE, 1);
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    take(counted());
  });
}

function drawing() {
  const canvas = byId("drawing");
  /** @type {[number, number] | null} */
  let last = null;
  const place = (/** @type {PointerEvent} */ event) => {
    const box = canvas.getBoundingClientRect();
    return /** @type {[number, number]} */ ([
      ((event.clientX - box.left) / box.width) * SIDE,
      ((event.clientY - box.top) / box.height) * SIDE,
    ]);
  };
  canvas.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    spot(...last);
    takeSoon();
  });
  canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    if (!last) return;
    const next = place(event);
    const steps = Math.ceil(Math.hypot(next[0] - last[0], next[1] - last[1]) * 2);
    for (let s = 1; s <= steps; s++) {
      spot(last[0] + ((next[0] - last[0]) * s) / steps, last[1] + ((next[1] - last[1]) * s) / steps);
    }
    last = next;
    takeSoon();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));
  byId("clear").addEventListener("click", () => {
    ink.fill(0);
    take(counted());
  });
}

/** Arrow keys move over the 8 x 8 form, digits and + and - set a level. @param {KeyboardEvent} event */
function typed(event) {
  const moves = /** @type {Record<string, number[]>} */ ({
    ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
  });
  const by = moves[event.key];
  const change = { "+": 4, "=": 4, "-": -4, " ": 16 }[event.key];
  if (!by && change === undefined) return;
  event.preventDefault();
  if (by) cursor = cursor.map((v, axis) => Math.min(Math.max(v + by[axis], 0), 7));
  const [i, j] = cursor;
  const levels = state.levels.map((row) => row.slice());
  if (change === 16) levels[i][j] = levels[i][j] ? 0 : 16;
  else if (change) levels[i][j] = Math.min(Math.max(levels[i][j] + change, 0), 16);
  if (change) {
    inkOf(levels);
    take(levels);
  }
  byId("pixels-said").textContent = `row ${i}, column ${j}: level ${levels[i][j]} of 16`;
  showLevels();
}

/** Inks as many dots of each block as its level says, so that drawing can go on. @param {number[][]} levels */
function inkOf(levels) {
  const spread = [0, 10, 2, 8, 5, 15, 7, 13, 1, 11, 3, 9, 4, 14, 6, 12];
  for (let at = 0; at < ink.length; at++) {
    const [i, j] = [Math.floor(at / SIDE), at % SIDE];
    ink[at] = spread[(i % 4) * 4 + (j % 4)] < levels[i >> 2][j >> 2] ? 1 : 0;
  }
}

function showLevels() {
  paint(byId("drawing"), ink, SIDE, SIDE, 1);
  paint(byId("pixels"), state.levels.flat(), 8, 8, 16);
  byId("pixels").style.setProperty("--row", String(cursor[0]));
  const input = state.values[0].get("data");
  if (input) paint(byId("tensor"), input.data, 32, 32, 2);
}

function samples() {
  const list = byId("samples");
  digits.forEach((digit) => {
    const canvas = element("canvas", { "aria-hidden": "true" });
    paint(canvas, digit.levels.flat(), 8, 8, 16);
    const use = () => {
      inkOf(digit.levels);
      take(digit.levels);
    };
    list.append(element("button", { type: "button", onclick: use, "aria-label": `the shipped ${digit.label}` }, canvas));
  });
}

function showAnswers() {
  networks.forEach((network, i) => {
    const probabilities = valueOf(i, network.output).data;
    const best = probabilities.indexOf(Math.max(...probabilities));
    const rows = [...probabilities].map((p, digit) =>
      element(
        "tr",
        { class: digit === best ? "best" : "" },
        element("th", { scope: "row" }, String(digit)),
        element("td", {}, element("meter", { value: p, min: 0, max: 1, "aria-label": `probability of ${digit}` })),
        element("td", { class: "number" }, p < 1e-4 ? brief(p, 2) : p.toFixed(4)),
      ),
    );
    byId(`answer-${i}`).replaceChildren(...rows);
    byId(`best-${i}`).textContent = `${network.title} (${network.framework}): ${best}`;
  });
}

/** Fills a list of values. @param {HTMLSelectElement} select @param {number} network */
export function listValues(select, network) {
  if (select.dataset.network === String(network)) return;
  select.dataset.network = String(network);
  select.replaceChildren(
    ...networks[network].nodes.map((node) =>
      element("option", { value: node.name }, `${node.name}: ${node.op} ${node.shape.slice(1).join("×")}`),
    ),
  );
}

let drawn = ""; // what the maps show: they stay when only the element changes
function showMaps() {
  const node = chosen();
  const value = valueOf(state.network, node.name);
  const { maps, width, height } = layout(node.shape);
  const key = `${state.network} ${node.name}`;
  const holder = byId("maps");
  if (drawn !== key) {
    drawn = key;
    byId("map-network").value = String(state.network);
    listValues(byId("map-value"), state.network);
    byId("map-value").value = node.name;
    while (holder.children.length > maps) holder.lastElementChild.remove();
    holder.append(...Array.from({ length: maps - holder.children.length }, () => element("canvas", { "aria-hidden": "true" })));
    holder.style.setProperty("--side", `${Math.max(width * (width < 5 ? 16 : width < 9 ? 9 : 5), 64)}px`);
    byId("map-caption").textContent =
      `${node.name} = ${node.op}: ${maps === 1 ? `${node.shape[1]} numbers` : `${maps} maps of ${height}×${width}`}`;
  }
  const largest = largestOf(value.data);
  [...holder.children].forEach((canvas, c) => {
    paint(canvas, value.data.subarray(c * width * height, (c + 1) * width * height), width, height, largest);
    canvas.classList.toggle("chosen", Math.floor(state.at / (width * height)) === c);
  });
  byId("map-range").textContent = `full colour: ±${brief(largest)}`;
  showElement();
}

function showElement() {
  const node = chosen();
  const { width, height } = layout(node.shape);
  [...byId("maps").children].forEach((canvas, c) =>
    canvas.classList.toggle("chosen", Math.floor(state.at / (width * height)) === c),
  );
  const value = valueOf(state.network, node.name).data[state.at];
  byId("map-said").textContent = `${where(node.shape, state.at)}: ${shortest(value)}`;
}

function mapEvents() {
  const holder = byId("maps");
  holder.addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const canvas = /** @type {HTMLElement} */ (event.target);
    const map = [...holder.children].indexOf(canvas);
    if (map < 0) return;
    const node = chosen();
    const { width, height } = layout(node.shape);
    const box = canvas.getBoundingClientRect();
    const column = Math.min(Math.floor(((event.clientX - box.left) / box.width) * width), width - 1);
    const row = Math.min(Math.floor(((event.clientY - box.top) / box.height) * height), height - 1);
    const at = map * width * height + row * width + column;
    if (at < valueOf(state.network, node.name).data.length) choose(state.network, node.name, at);
  });
  holder.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const node = chosen();
    const { width, height } = layout(node.shape);
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width, PageUp: -width * height, PageDown: width * height }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    const size = valueOf(state.network, node.name).data.length;
    if (state.at + by >= 0 && state.at + by < size) choose(state.network, node.name, state.at + by);
  });
  byId("map-network").addEventListener("change", (/** @type {any} */ event) => {
    const network = Number(event.target.value);
    choose(network, networks[network].nodes[0].name, 0);
  });
  byId("map-value").addEventListener("change", (/** @type {any} */ event) => choose(state.network, event.target.value, 0));
}

/** Starts the chapter. */
export function startDigit() {
  inkOf(state.levels);
  drawing();
  samples();
  mapEvents();
  networks.forEach((network, i) => byId("map-network").append(element("option", { value: i }, network.title)));
  byId("pixels").addEventListener("keydown", typed);
  follow("digit", () => {
    showLevels();
    showAnswers();
  });
  follow("element", showMaps);
}
