"use strict";
// Tables that sort by their heads.

function sortBy(header) {
  const table = header.closest("table");
  const column = [...header.parentNode.children].indexOf(header);
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  const text = (row) => row.children[column].textContent;
  const value = (row) => Number.parseFloat(text(row).replace("−", "-"));
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (Number.isNaN(x) && Number.isNaN(y)) return text(a).localeCompare(text(b)) * (ascending ? 1 : -1);
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
    return (x - y) * (ascending ? 1 : -1);
  };
  for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
}

// No <button>: on paper, a browser does not repeat a table's head that holds one.
function sortable() {
  for (const button of document.querySelectorAll(".sortable th [role=button]")) {
    button.addEventListener("click", () => sortBy(button.parentNode));
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sortBy(button.parentNode);
    });
  }
}
