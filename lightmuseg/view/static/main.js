// The page: which slide is seen, how, and what keys do.

import { List } from "./list.js";
import { showDetails } from "./panel.js";
import { roundLength } from "./quantities.js";
import { RegionPointer } from "./region.js";
import { SlideView } from "./slide.js";

const find = (name) => document.querySelector(`#${name}`);
const SCALE_BAR_PIXELS = 140;
// names of classes that are off, kept from slide to slide
const hidden = new Set();
let details = null;

const view = new SlideView(find("slide"), {
  moved(frame) {
    region.moved(frame);
    const { pixels, text } = roundLength(details.level0_mpp / frame.scale, SCALE_BAR_PIXELS);
    find("scale-bar").style.width = `${pixels}px`;
    find("scale-text").textContent = text;
  },
  failed: () => say("Some tiles could not be loaded. Reload the page; is the server still running?"),
});
const region = new RegionPointer(view);
const list = new List((id) => { location.hash = id; });

function shown() {
  return new Set(details.classes.filter(({ name }) => !hidden.has(name)).map(({ index }) => index));
}

function opacity() {
  return Number(find("opacity").value) / 100;
}

function say(text) {
  find("message").textContent = text;
  find("message").hidden = !text;
}

async function open(id) {
  list.mark(id);
  region.clear();
  if (!id) return;
  try {
    const answer = await fetch(`/results/${encodeURIComponent(id)}`);
    const content = answer.headers.get("content-type")?.includes("json") ? await answer.json() : null;
    if (list.current !== id) return;
    if (!answer.ok) {
      say("There is no such result now. Refresh the list.");
      return;
    }
    details = content;
  } catch {
    say("The server does not answer. Is it still running?");
    return;
  }
  say("");
  region.details = details;
  region.shown = shown();
  showDetails(details, region.shown, toggle);
  view.open(details, region.shown, opacity());
}

function toggle(index, on) {
  const { name } = details.classes.find((one) => one.index === index);
  if (on) hidden.delete(name);
  else hidden.add(name);
  region.shown = shown();
  region.clear();
  view.setShown(region.shown);
}

function setOpacity(value) {
  find("opacity").value = value;
  find("opacity-text").textContent = `${find("opacity").value} %`;
  view.setOpacity(opacity());
}

async function refresh() {
  try {
    await list.load();
  } catch (error) {
    say(error.message);
    return;
  }
  const wanted = location.hash.slice(1);
  if (wanted && list.items.has(wanted)) {
    const { version } = list.results.find(({ id }) => id === wanted);
    if (details?.id !== wanted || details.version !== version) await open(wanted);
  } else if (list.shown.length) location.replace(`#${list.shown[0].id}`);
}

function go(step) {
  const id = list.neighbour(step);
  if (id) location.hash = id;
}

function press(number) {
  const box = find("classes").querySelectorAll("input")[number - 1];
  if (box) box.click();
}

const KEYS = [
  [["j", "ArrowDown", "ArrowRight"], "↓ → j", "next slide", () => go(1)],
  [["k", "ArrowUp", "ArrowLeft"], "↑ ← k", "slide before", () => go(-1)],
  [["+", "="], "+", "zoom in", () => view.zoomBy(1.5)],
  [["-"], "-", "zoom out", () => view.zoomBy(1 / 1.5)],
  [["0"], "0", "whole slide", () => view.home()],
  [["w"], "w", "up", () => view.panBy(0, -0.25)],
  [["a"], "a", "left", () => view.panBy(-0.25, 0)],
  [["s"], "s", "down", () => view.panBy(0, 0.25)],
  [["d"], "d", "right", () => view.panBy(0.25, 0)],
  [["["], "[", "map more transparent", () => setOpacity(Number(find("opacity").value) - 10)],
  [["]"], "]", "map less transparent", () => setOpacity(Number(find("opacity").value) + 10)],
  [[..."123456789"], "1 to 9", "class on or off", (key) => press(Number(key))],
  [["r"], "r", "region in the middle of the view", () => region.lookAtMiddle()],
  [["/"], "/", "filter the list", () => find("filter").focus()],
  [["?"], "?", "this list", () => find("help").showModal()],
];

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || find("help").open) return;
  const typing = target.matches("input[type=search], select");
  if (key === "Escape") {
    region.clear();
    if (typing) {
      // or the browser would empty the field, and j and k go through what is filtered
      event.preventDefault();
      target.blur();
    }
    return;
  }
  if (typing || (target.matches("input[type=range]") && key.startsWith("Arrow"))) return;
  const found = KEYS.find(([keys]) => keys.includes(key));
  if (!found) return;
  event.preventDefault();
  found[3](key);
}, true);

find("help").querySelector("tbody").append(...KEYS.map(([, keys, does]) => {
  const row = document.createElement("tr");
  const [head, text] = ["th", "td"].map((kind) => row.appendChild(document.createElement(kind)));
  head.append(...keys.split(" ").map((key) => {
    const element = document.createElement(key === "to" ? "span" : "kbd");
    element.textContent = key === "to" ? " to " : key;
    return element;
  }));
  text.textContent = does;
  return row;
}));
find("zoom-in").addEventListener("click", () => view.zoomBy(1.5));
find("zoom-out").addEventListener("click", () => view.zoomBy(1 / 1.5));
find("home").addEventListener("click", () => view.home());
find("show-help").addEventListener("click", () => find("help").showModal());
find("refresh").addEventListener("click", refresh);
find("opacity").addEventListener("input", (event) => setOpacity(event.target.value));
addEventListener("hashchange", () => open(location.hash.slice(1)));
setOpacity(find("opacity").value);
refresh();
