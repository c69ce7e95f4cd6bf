// The list of slides: sorted, filtered, and one of them current.

import { areaMm2 } from "./quantities.js";

const byName = new Intl.Collator("en", { numeric: true });
const ORDERS = {
  name: (a, b) => byName.compare(a.place, b.place),
  tumor: (a, b) => (b.areas_mm2.tumor ?? -1) - (a.areas_mm2.tumor ?? -1) || ORDERS.name(a, b),
  warnings: (a, b) => b.warnings - a.warnings || ORDERS.name(a, b),
};

export class List {
  constructor(choose) {
    this.choose = choose;
    this.results = [];
    this.items = new Map();
    this.current = null;
    this.element = document.querySelector("#list");
    this.filter = document.querySelector("#filter");
    this.sort = document.querySelector("#sort");
    this.filter.addEventListener("input", () => this.arrange());
    this.sort.addEventListener("change", () => this.arrange());
  }

  /** Ask the server what is there now. */
  async load() {
    const answer = await fetch("/results");
    if (!answer.ok) throw new Error("the server does not answer; is it still running?");
    const { folder, results, failed, skipped } = await answer.json();
    this.results = results;
    document.querySelector("#folder").textContent = folder;
    document.title = `${folder} - LightMuSeg`;
    this.items = new Map(results.map((result) => [result.id, item(result, this.choose)]));
    tell("#failed", Object.entries(failed), (count) => `${count} slide${count === 1 ? "" : "s"} failed`);
    tell("#skipped", Object.entries(skipped), (count) => `${count} run.json left out`);
    this.arrange();
  }

  arrange() {
    const words = this.filter.value.toLowerCase().split(/\s+/);
    this.shown = this.results
      .filter(({ place }) => words.every((word) => place.toLowerCase().includes(word)))
      .sort(ORDERS[this.sort.value]);
    this.element.replaceChildren(...this.shown.map(({ id }) => this.items.get(id)));
    const count = document.querySelector("#count");
    const all = this.results.length;
    count.textContent = all === 0 ? "No results yet. Refresh when there are."
      : this.shown.length === all ? `${all} slide${all === 1 ? "" : "s"}` : `${this.shown.length} of ${all} slides`;
    this.mark(this.current);
  }

  mark(id) {
    this.items.get(this.current)?.firstChild.removeAttribute("aria-current");
    this.current = id;
    const chosen = this.items.get(id);
    chosen?.firstChild.setAttribute("aria-current", "true");
    if (chosen?.isConnected) chosen.scrollIntoView({ block: "nearest" });
  }

  /** The id of the slide `step` further in the list. */
  neighbour(step) {
    const place = this.shown.findIndex(({ id }) => id === this.current);
    return this.shown[place < 0 ? 0 : Math.min(this.shown.length - 1, Math.max(0, place + step))]?.id;
  }
}

export function nameOf(place) {
  return place.slice(place.lastIndexOf("/") + 1);
}

function item({ id, version, place, areas_mm2, warnings }, choose) {
  const image = document.createElement("img");
  image.loading = "lazy";
  image.alt = "";
  image.src = `/results/${id}/${version}/thumbnail.jpg`;
  const name = document.createElement("b");
  name.textContent = nameOf(place);
  const folder = document.createElement("span");
  folder.textContent = place.slice(0, -nameOf(place).length - 1);
  const facts = document.createElement("span");
  facts.textContent = areas_mm2.tumor === undefined ? "" : `tumor ${areaMm2(areas_mm2.tumor)} `;
  if (warnings) {
    const badge = document.createElement("em");
    badge.textContent = `⚠ ${warnings}`;
    badge.setAttribute("role", "img");
    badge.setAttribute("aria-label", `${warnings} warning${warnings === 1 ? "" : "s"}`);
    facts.append(badge);
  }
  const text = document.createElement("div");
  text.append(name, ...(folder.textContent ? [folder] : []), facts);
  const button = document.createElement("button");
  button.type = "button";
  button.title = place;
  button.append(image, text);
  button.addEventListener("click", () => choose(id));
  const line = document.createElement("li");
  line.append(button);
  return line;
}

/** A list of what is not shown, each with its reason, under a line that says how many they are. */
function tell(selector, entries, summary) {
  const element = document.querySelector(selector);
  element.hidden = entries.length === 0;
  element.querySelector("summary").textContent = summary(entries.length);
  element.querySelector("ul").replaceChildren(...entries.map(([name, reason]) => {
    const line = document.createElement("li");
    line.textContent = `${name}: ${reason}`;
    return line;
  }));
}
