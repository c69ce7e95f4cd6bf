// The region under the pointer: its class, its size, its outline.

import { area } from "./quantities.js";

const WAIT_MS = 40;

export class RegionPointer {
  constructor(view, area) {
    this.view = view;
    this.area = area;
    this.details = null;
    this.shown = new Set();
    this.label = document.querySelector("#region");
    this.path = document.querySelector("#outline path");
    // over the tiles, under the small whole slide
    view.viewer.canvas.append(document.querySelector("#outline"));
    view.element.addEventListener("pointermove", (event) => this.pointed(event));
    view.element.addEventListener("pointerleave", () => this.clear());
  }

  pointed({ clientX, clientY, buttons }) {
    clearTimeout(this.timer);
    if (buttons) return;
    const { left, top } = this.view.element.getBoundingClientRect();
    this.timer = setTimeout(() => this.look(clientX - left, clientY - top), WAIT_MS);
  }

  /** The region in the middle of the view, for those without a mouse. */
  lookAtMiddle() {
    const { width, height } = this.view.element.getBoundingClientRect();
    this.look(width / 2, height / 2, "nothing is marked here");
  }

  async look(x, y, nothing) {
    const place = this.view.placeAt(x, y);
    this.asked?.abort();
    if (!place || !this.details?.map.levels) return this.clear();
    this.asked = new AbortController();
    const { id, classes } = this.details;
    try {
      const answer = await fetch(`/results/${id}/region?${new URLSearchParams(place)}`, { signal: this.asked.signal });
      const found = await answer.json();
      if (this.details.id !== id) return;
      if (!answer.ok) return this.write(x, y, found.detail ?? "regions cannot be read", "", null);
      const known = found && classes.find(({ name }) => name === found.class);
      if (!found || (known && !this.shown.has(known.index))) {
        this.clear();
        if (nothing) this.write(x, y, nothing, "", null);
        return;
      }
      this.path.setAttribute("d", found.outline.map(drawn).join(""));
      this.write(x, y, found.class.replaceAll("_", " "), area(found.area_um2), known?.colour);
    } catch (error) {
      if (error.name !== "AbortError") this.clear();
    }
  }

  write(x, y, name, size, colour) {
    const [swatch, bold, plain] = this.label.children;
    swatch.hidden = !colour;
    swatch.style.backgroundColor = colour ? `rgb(${colour.join(" ")})` : "";
    bold.textContent = name;
    plain.textContent = size;
    this.label.hidden = false;
    const { width, height } = this.view.element.getBoundingClientRect();
    const left = Math.min(x + 14, width - this.label.offsetWidth - 6);
    const top = Math.min(y + 18, height - this.label.offsetHeight - 6);
    this.label.style.transform = `translate(${left}px, ${top}px)`;
  }

  clear() {
    clearTimeout(this.timer);
    this.asked?.abort();
    this.label.hidden = true;
    this.path.removeAttribute("d");
  }

  moved({ scale, x, y }) {
    this.path.setAttribute("transform", `matrix(${scale} 0 0 ${scale} ${x} ${y})`);
  }
}

function drawn(ring) {
  let text = "M";
  for (let at = 0; at < ring.length; at += 2) text += `${at ? "L" : ""}${ring[at]} ${ring[at + 1]}`;
  return `${text}Z`;
}
