// What is known of the slide that is seen: classes, areas, warnings.

import { areaMm2, percent } from "./quantities.js";
import { nameOf } from "./list.js";

const SUMS = { other_tissue: "other tissue", tissue: "tissue", analysed: "analysed" };
const find = (name) => document.querySelector(`#${name}`);

export function showDetails(details, shown, toggle) {
  const { place, classes, areas_mm2, warnings, slide, map, level0_size, level0_mpp } = details;
  find("name").textContent = nameOf(place);
  find("place").textContent = place === nameOf(place) ? "" : place;
  const faults = [slide.fault && `The slide is not shown: ${slide.fault}`, map.fault && `No map: ${map.fault}`];
  find("warnings").replaceChildren(...[...faults.filter(Boolean), ...warnings].map((text) => {
    const line = document.createElement("li");
    line.textContent = text;
    return line;
  }));
  const tissue = areas_mm2.tissue;
  find("classes").replaceChildren(...classes.map((one, number) => classLine(one, number, tissue, shown, toggle)));
  find("areas").tBodies[0].replaceChildren(
    ...Object.entries(SUMS).filter(([name]) => areas_mm2[name] !== undefined).map(([name, text]) => {
      const row = document.createElement("tr");
      const [head, value] = ["th", "td"].map((kind) => row.appendChild(document.createElement(kind)));
      head.textContent = text;
      head.scope = "row";
      value.textContent = areaMm2(areas_mm2[name]);
      return row;
    }),
  );
  const report = find("report");
  report.hidden = !details.report;
  report.href = `/results/${details.id}/report.html`;
  const [width, height] = level0_size.map((side) => side.toLocaleString("en"));
  find("facts").textContent = `${width} × ${height} pixels, ${Number(level0_mpp.toPrecision(4))} µm per pixel\n${nameOf(slide.path)}`;
  find("facts").title = slide.path;
}

function classLine({ index, name, colour, area_mm2 }, number, tissue, shown, toggle) {
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = shown.has(index);
  box.dataset.index = index;
  box.addEventListener("change", () => toggle(index, box.checked));
  const swatch = document.createElement("i");
  swatch.style.backgroundColor = `rgb(${colour.join(" ")})`;
  const text = document.createElement("span");
  text.textContent = name.replaceAll("_", " ");
  const size = document.createElement("output");
  if (area_mm2 !== null) {
    size.textContent = areaMm2(area_mm2);
    if (tissue > 0 && name !== "unread") {
      const share = document.createElement("small");
      share.textContent = percent(area_mm2 / tissue);
      size.append(share);
    }
  }
  const label = document.createElement("label");
  if (number < 9) label.title = `Key ${number + 1}`;
  label.append(box, swatch, text, size);
  return label;
}
