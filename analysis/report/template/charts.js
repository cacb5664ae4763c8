"use strict";
// Draws the charts in the page's theme and width, and offers each of them as a file.

const NARROW = matchMedia("screen and (max-width: 800px)");
// What a map's axis and labels take of a narrow page.
const AXIS_WIDTH = 76;
// Columns that only place a mark, and are in no file.
const DRAWN = /^(x|y|[xy]_(low|high)|letter|barrier_text|colour_text|colour)(_light)?$/;

// The lines of a title for so many pixels, broken between words.
function wrapped(lines, width) {
  const most = Math.max(8, Math.floor(width / 7.4));
  const words = lines.map((line) => (line.endsWith(" ") ? line : `${line} · `)).join("").slice(0, -3).split(" ");
  return words.reduce(
    (found, word) => {
      const joined = `${found.at(-1)} ${word}`.trim();
      return joined.length <= most ? [...found.slice(0, -1), joined] : [...found, word];
    },
    [""],
  );
}

// A chart beside the first of its row relies on the first one's vertical axis; below it, it needs its own.
function withAxis(view, first) {
  const own = { ...view };
  for (const parts of ["hconcat", "vconcat", "concat", "layer"]) {
    if (view[parts] && first?.[parts]) own[parts] = view[parts].map((part, at) => withAxis(part, first[parts][at]));
  }
  const [y, model] = [view.encoding?.y, first?.encoding?.y];
  if (y && y.field === model?.field && (y.title === null || y.axis?.title === null)) {
    own.encoding = { ...view.encoding, y: { ...y, title: model.title, axis: model.axis } };
  }
  return own;
}

// One column of charts, none wider than the page.
function narrowed(spec, width) {
  const maps = spec.params?.some(({ name }) => name === "map_width");
  const titled = ({ title, ...view }) => {
    if (Array.isArray(title)) return { ...view, title: wrapped(title, width) };
    return Array.isArray(title?.text) ? { ...view, title: { ...title, text: wrapped(title.text, width) } } : { ...view, title };
  };
  const fitted = (name, channel) => {
    if (Array.isArray(channel)) return channel;
    const longest = Math.max(0, ...[channel.scale?.domain ?? []].flat().map((value) => String(value).length));
    const legend = channel.legend ? { legend: { ...channel.legend, columns: longest > 14 ? 1 : 2 } } : {};
    const title = name === "x" && typeof channel.title === "string" ? { title: wrapped([channel.title], width) } : {};
    return { ...channel, ...legend, ...title };
  };
  const narrow = ({ hconcat, vconcat, concat, layer, columns, ...view }) => {
    const row = hconcat ?? concat;
    const parts = row?.map((part) => withAxis(part, row[0])) ?? vconcat;
    if (parts) return { ...titled(view), spacing: 20, vconcat: parts.map(narrow) };
    const fitting = (encoding) =>
      Object.fromEntries(Object.entries(encoding).map(([name, channel]) => [name, fitted(name, channel)]));
    const drawn = titled(view);
    if (drawn.encoding) drawn.encoding = fitting(drawn.encoding);
    if (layer) drawn.layer = layer.map(narrow);
    if (typeof drawn.width === "number") drawn.width = maps ? width : Math.min(drawn.width, width);
    return drawn;
  };
  const params = spec.params?.map((param) => (param.name === "map_width" ? { ...param, value: width } : param));
  const legend = { ...spec.config.legend, layout: { top: { direction: "vertical", anchor: "start", margin: 4 } } };
  return { ...narrow(spec), ...(params ? { params } : {}), config: { ...spec.config, legend } };
}

function themed(spec, pairs) {
  const { datasets, ...drawing } = spec;
  const text = Object.entries(pairs).reduce((all, [light, other]) => all.replaceAll(light, other), JSON.stringify(drawing));
  return { ...JSON.parse(text), datasets };
}

function drawnSpec(page, id, less = 0) {
  const own = document.getElementById(id);
  const width = Math.max(own.clientWidth - AXIS_WIDTH - less, 120);
  const spec = NARROW.matches && !(id in OF_CELL) ? narrowed(page.charts[id], width) : page.charts[id];
  return currentTheme() === "dark" ? themed(spec, page.dark) : spec;
}

// The view and the spec that it draws; a narrow page gets a second one where labels took more than was left for them.
async function embed(page, id) {
  const own = document.getElementById(id);
  const options = { renderer: page.renderer, actions: false, tooltip: { offsetX: 16, offsetY: 16, theme: currentTheme() } };
  let spec = drawnSpec(page, id);
  let { view } = await vegaEmbed(own, spec, options);
  const over = own.scrollWidth - own.clientWidth;
  if (NARROW.matches && over > 0) {
    view.finalize();
    spec = drawnSpec(page, id, over);
    ({ view } = await vegaEmbed(own, spec, options));
  }
  return { view, spec };
}

function download(name, content, type) {
  const link = document.createElement("a");
  link.href = typeof content === "string" && content.startsWith("data:") ? content : URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
}

// The rows behind a chart: those of its largest table, and of all that are like it, each once.
function tableOf(view, spec) {
  const tables = Object.keys(spec.datasets).map((name) => view.data(name)).filter((rows) => rows.length > 0);
  const columns = (rows) => Object.keys(rows[0]);
  const largest = tables.reduce((most, rows) => (rows.length > most.length ? rows : most));
  const alike = tables.filter((rows) => columns(rows).join() === columns(largest).join());
  return csvOf(alike.flat(), columns(largest).filter((name) => !DRAWN.test(name)));
}

// Rows as text, each once.
function csvOf(rows, names) {
  const quoted = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const lines = rows.map((row) => names.map((name) => quoted(String(row[name] ?? ""))).join(","));
  return [names.join(","), ...new Set(lines), ""].join("\n");
}

// What is drawn now: of the charts of one cell, that of the cell that is shown.
function dataOf(view, { datasets }) {
  return Object.fromEntries(Object.keys(datasets).map((name) => [name, view.data(name)]));
}

const EXPORTS = {
  SVG: async (view) => [await view.toSVG(), "svg", "image/svg+xml"],
  PNG: async (view) => [await view.toImageURL("png", 2), "png", "image/png"],
  CSV: async (view, spec, rows) => [rows ? csvOf(rows, Object.keys(rows[0])) : tableOf(view, spec), "csv", "text/csv"],
  "Vega-Lite": async (view, spec) => [JSON.stringify({ ...spec, datasets: dataOf(view, spec) }), "vl.json", "application/json"],
};

// Below the chart, in the text: nothing is covered, and nothing is cut off.
function offer(id, label, found) {
  const menu = document.createElement("p");
  menu.className = "exports screen";
  menu.setAttribute("role", "group");
  menu.setAttribute("aria-label", `Save: ${label}`);
  for (const [name, made] of Object.entries(EXPORTS)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", async () => {
      const { view, spec, rows } = found();
      const [content, suffix, type] = await made(view, spec, rows);
      download(`${document.title.split(" · ")[0]}-${id}.${suffix}`, content, type);
    });
    menu.append(button);
  }
  document.getElementById(id).after(menu);
}

// Draws all charts, offers their files, and draws them again when the page's width or theme changes.
// views: is filled with what is drawn. each, all: called when one is drawn, and when all are.
async function keepDrawn(page, views, { each = () => {}, all = async () => {} } = {}) {
  const specs = {};
  async function drawAll() {
    document.documentElement.dataset.theme = currentTheme();
    for (const id of Object.keys(page.charts)) {
      views[id]?.finalize();
      ({ view: views[id], spec: specs[id] } = await embed(page, id));
      each(id);
    }
    await all();
  }

  await drawAll();
  for (const id of Object.keys(page.charts)) {
    const label = document.getElementById(id).getAttribute("aria-label");
    offer(id, label, () => ({ view: views[id], spec: specs[id], rows: page.exports?.[id] }));
  }

  // One after the other: a chart must not be drawn twice at once.
  let drawing = Promise.resolve();
  const again = () => (drawing = drawing.then(drawAll));
  NARROW.addEventListener("change", again);
  DARK.addEventListener("change", () => {
    if (storedTheme() || document.documentElement.dataset.asked) return;
    delete document.documentElement.dataset.theme;
    again();
  });
  document.getElementById("theme").addEventListener("click", () => {
    storeTheme(currentTheme() === "dark" ? "light" : "dark");
    again();
  });
  return { settled: () => drawing };
}
