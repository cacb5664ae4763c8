"use strict";
// Draws the charts and keeps one cell picked: the pointer on any tile, point or table row picks its cell.
(async () => {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  // analysis/packed.py packs tables column by column.
  function unpack(table) {
    const names = Object.keys(table);
    const whole = (column) => (Array.isArray(column) ? column : column.at.map((at) => column.values[at]));
    const columns = Object.values(table).map(whole);
    return columns[0].map((_, at) => Object.fromEntries(names.map((name, n) => [name, columns[n][at]])));
  }
  function unpackCells({ table, places, curves, learning }) {
    const parts = unpack(places);
    const of = (at) => Object.entries(curves).flatMap(([name, bands]) => (bands[at] ? [[name, bands[at]]] : []));
    return unpack(table).map(({ cell, verdict, reason, ...numbers }, at) => [
      cell,
      {
        place: Object.values(parts[at]).join(" · "), verdict, reason, numbers,
        curves: Object.fromEntries(of(at)), learning: learning[cell] ?? null,
      },
    ]);
  }
  page.cells = Object.fromEntries(unpackCells(page.cells));
  for (const spec of Object.values(page.charts)) {
    for (const [name, table] of Object.entries(spec.datasets)) spec.datasets[name] = unpack(table);
  }
  const [split, quantity] = page.judged.split("_");
  const element = (id) => document.getElementById(id);
  const options = {
    renderer: page.renderer,
    actions: { export: { svg: true, png: true }, source: false, compiled: false, editor: false },
    downloadFileName: document.title,
    tooltip: { offsetX: 16, offsetY: 16 },
  };
  function curveRows(curves) {
    return Object.entries(curves).flatMap(([name, [mean, low, high]]) => {
      const [of, what] = name.split("_");
      const chord = (at) => (of === split && what === quantity ? mean[0] + at * (mean.at(-1) - mean[0]) : null);
      return page.lambdas.map((at, i) => ({
        split: of, quantity: what, lambda: at, mean: mean[i], low: low[i], high: high[i], chord: chord(at),
      }));
    });
  }

  // As analysis/learning.py orders them, below the epochs.
  const lines = [["train", "loss"], ["test", "loss"], ["train", "error"], ["test", "error"]];
  function learningRows(learning) {
    if (learning === null) return [];
    const [epochs, ...values] = learning;
    return lines.flatMap(([split, quantity], line) =>
      epochs.map((epoch, at) => ({ split, quantity, epoch, value: values[line][at] })),
    );
  }

  const ofCell = { curves: (cell) => curveRows(cell.curves), learning: (cell) => learningRows(cell.learning) };
  const views = {};
  for (const [id, spec] of Object.entries(page.charts)) {
    if (id in ofCell) spec.datasets = { [id]: ofCell[id](page.cells[page.picked]) };
    views[id] = (await vegaEmbed(`#${id}`, spec, id in ofCell ? { ...options, actions: false } : options)).view;
  }
  const linked = Object.keys(page.charts).filter((id) => page.charts[id].params);

  function describe(cell) {
    element("cell-place").textContent = cell.place;
    element("cell-verdict").textContent = cell.verdict;
    element("cell-verdict").className = `chip ${cell.verdict}`;
    element("cell-reason").textContent = cell.reason;
    element("cell-numbers").replaceChildren(
      ...Object.entries(cell.numbers).flatMap(([name, value]) => {
        const term = document.createElement("dt");
        const description = document.createElement("dd");
        term.textContent = name;
        description.textContent = value;
        return [term, description];
      }),
    );
  }

  // A cell without curves leaves the last ones in place, out of sight: an empty chart has no scales.
  async function draw(id, cell) {
    const rows = id in views ? ofCell[id](cell) : [];
    for (const part of [id, `${id}-note`]) element(part).hidden = rows.length === 0;
    if (rows.length > 0) await views[id].data(id, rows).runAsync();
  }

  // A cell that is left before it was drawn is passed over: drawing many tiles takes longer than moving across them.
  let wanted = null;
  let picked = null;
  let drawing = false;
  async function pick(id) {
    if (!(id in page.cells)) return;
    wanted = id;
    if (drawing) return;
    drawing = true;
    while (picked !== wanted) await show((picked = wanted));
    drawing = false;
  }

  async function show(id) {
    const cell = page.cells[id];
    element("cell").dataset.cell = id;
    describe(cell);
    for (const row of document.querySelectorAll("tr.picked")) row.classList.remove("picked");
    for (const row of document.querySelectorAll(`tr[data-cell="${id}"]`)) row.classList.add("picked");
    for (const name of Object.keys(ofCell)) await draw(name, cell);
    for (const name of linked) await views[name].signal("picked", id).runAsync();
  }

  for (const name of linked) views[name].addEventListener("pointerover", (_, item) => pick(item?.datum?.cell));
  for (const row of document.querySelectorAll("tr[data-cell]")) {
    row.addEventListener("pointerenter", () => pick(row.dataset.cell));
  }

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
  for (const button of document.querySelectorAll(".sortable th [role=button]")) {
    button.addEventListener("click", () => sortBy(button.parentNode));
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sortBy(button.parentNode);
    });
  }

  await pick(page.picked);
  window.report = { page, views, pick };
  document.body.dataset.ready = "true";
})();
