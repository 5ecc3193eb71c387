"use strict";
document.documentElement.classList.add("js");
{
// Sort a table by the column whose head is clicked; rows without a value go last.
const value = (part, column) => {
  const cell = (part.tagName === "TBODY" ? part.rows[0] : part).cells[column];
  const text = cell.textContent.trim().replace(/−/g, "-").replace(/,/g, "");
  return text === "–" || text === "" ? null : /^[+-]?[\d.]+( ?%)?$/.test(text) ? parseFloat(text) : text;
};
const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
for (const head of document.querySelectorAll("table.sort > thead th")) {
  if (!head.textContent.trim()) continue;
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const table = head.closest("table"), column = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending";
    const parts = table.tBodies.length > 1 ? [...table.tBodies] : [...table.tBodies[0].rows];
    const keyed = parts.map((part) => [value(part, column), part]);
    keyed.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : (up ? 1 : -1) * compare(a, b)));
    const home = parts.length ? parts[0].parentNode : null;
    for (const [, part] of keyed) home.append(part);
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  });
}
}
