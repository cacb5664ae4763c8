"use strict";
// The page's data: tables packed column by column (columnar.py), and the rows of the charts of one cell.

function unpack(table) {
  const names = Object.keys(table);
  const whole = (column) => (Array.isArray(column) ? column : column.at.map((at) => column.values[at]));
  const columns = Object.values(table).map(whole);
  return columns[0].map((_, at) => Object.fromEntries(names.map((name, n) => [name, columns[n][at]])));
}

function unpackCells({ table, places, curves, learning }) {
  const parts = unpack(places);
  const of = (at) => Object.entries(curves).flatMap(([name, bands]) => (bands[at] ? [[name, bands[at]]] : []));
  return Object.fromEntries(
    unpack(table).map(({ cell, verdict, reason, ...numbers }, at) => [
      cell,
      {
        place: Object.values(parts[at]).join(" · "), verdict, reason, numbers,
        curves: Object.fromEntries(of(at)), learning: learning[cell] ?? null,
      },
    ]),
  );
}

function readPage() {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  if (page.cells) page.cells = unpackCells(page.cells);
  for (const [id, table] of Object.entries(page.exports ?? {})) page.exports[id] = unpack(table);
  for (const spec of Object.values(page.charts)) {
    for (const [name, table] of Object.entries(spec.datasets)) spec.datasets[name] = unpack(table);
  }
  return page;
}

function curveRows(page, { curves }) {
  const [split, quantity] = page.judged.split("_");
  return Object.entries(curves).flatMap(([name, [mean, low, high]]) => {
    const [of, what] = name.split("_");
    const chord = (at) => (of === split && what === quantity ? mean[0] + at * (mean.at(-1) - mean[0]) : null);
    return page.lambdas.map((at, i) => ({
      split: of, quantity: what, lambda: at, mean: mean[i], low: low[i], high: high[i], chord: chord(at),
    }));
  });
}

// As charts/learning.py orders them, below the epochs.
const LINES = [["train", "loss"], ["test", "loss"], ["train", "error"], ["test", "error"]];

function learningRows(_, { learning }) {
  if (learning === null) return [];
  const [epochs, ...values] = learning;
  return LINES.flatMap(([split, quantity], line) =>
    epochs.map((epoch, at) => ({ split, quantity, epoch, value: values[line][at] })),
  );
}

// The charts of the cell that is shown, and the rows that each draws of it.
const OF_CELL = { curves: curveRows, learning: learningRows };
