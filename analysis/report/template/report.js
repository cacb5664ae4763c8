"use strict";
(async () => {
  const page = readPage();
  const views = {};
  const specs = {};
  for (const id of Object.keys(OF_CELL)) {
    if (id in page.charts) page.charts[id].datasets = { [id]: OF_CELL[id](page, page.cells[page.picked]) };
  }
  const picking = new Picking(page, views);

  async function drawAll() {
    document.documentElement.dataset.theme = currentTheme();
    for (const id of Object.keys(page.charts)) {
      views[id]?.finalize();
      ({ view: views[id], spec: specs[id] } = await embed(page, id));
      picking.watch(id);
    }
    await picking.redraw();
  }

  await drawAll();
  for (const id of Object.keys(page.charts)) {
    const label = document.getElementById(id).getAttribute("aria-label");
    offer(id, label, () => ({ view: views[id], spec: specs[id] }));
  }
  sortable();
  picking.listen();
  await picking.followAddress();

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

  // A panel that is higher than the window stays with its end in sight: it never scrolls inside itself.
  const panel = document.getElementById("cell");
  const place = () => panel.style.setProperty("top", `${Math.min(16, innerHeight - panel.offsetHeight - 16)}px`);
  new ResizeObserver(place).observe(panel);
  addEventListener("resize", place);

  window.report = { page, views, picking, settled: () => drawing.then(() => picking.drawing) };
  document.body.dataset.ready = "true";
})();
