"use strict";
// A click on a column's title sorts the table by it; a line "as published" stays below its run.
(() => {
  const value = row => column => {
    const cell = row.cells[column];
    const text = cell ? cell.dataset.sort ?? cell.textContent.trim() : "";
    const number = parseFloat(text);
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : typeof a === "number" ? 1 : typeof b === "number" ? -1 : a.localeCompare(b);
  const sort = (table, title) => {
    const column = title.cellIndex;
    const falls = title.getAttribute("aria-sort") === "descending";
    const first = title.classList.contains("number") ? "descending" : "ascending";
    const order = title.hasAttribute("aria-sort") ? (falls ? "ascending" : "descending") : first;
    const groups = [];
    for (const row of table.tBodies[0].rows) {
      if (row.classList.contains("published")) groups.at(-1).push(row); else groups.push([row]);
    }
    const sign = order === "ascending" ? 1 : -1;
    groups.sort((a, b) => sign * compare(value(a[0])(column), value(b[0])(column)));
    table.tBodies[0].append(...groups.flat());
    for (const other of title.parentElement.cells) other.removeAttribute("aria-sort");
    title.setAttribute("aria-sort", order);
  };
  for (const table of document.querySelectorAll("table")) {
    if (table.tBodies[0].rows.length < 2) continue;
    for (const title of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.append(...title.childNodes);
      button.addEventListener("click", () => sort(table, title));
      title.append(button);
    }
  }
})();
