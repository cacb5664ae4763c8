"use strict";
(async () => {
  const page = readPage();
  const views = {};
  for (const id of Object.keys(OF_CELL)) {
    if (id in page.charts) page.charts[id].datasets = { [id]: OF_CELL[id](page, page.cells[page.picked]) };
  }
  const picking = new Picking(page, views);
  const drawn = await keepDrawn(page, views, { each: (id) => picking.watch(id), all: () => picking.redraw() });
  sortable();
  picking.listen();
  await picking.followAddress();

  // A panel that is higher than the window stays with its end in sight: it never scrolls inside itself.
  const panel = document.getElementById("cell");
  const place = () => panel.style.setProperty("top", `${Math.min(16, innerHeight - panel.offsetHeight - 16)}px`);
  new ResizeObserver(place).observe(panel);
  addEventListener("resize", place);

  window.report = { page, views, picking, settled: () => drawn.settled().then(() => picking.drawing) };
  document.body.dataset.ready = "true";
})();
