"use strict";
(async () => {
  const page = readPage();
  const views = {};
  const drawn = await keepDrawn(page, views);
  sortable();
  window.report = { page, views, settled: drawn.settled };
  document.body.dataset.ready = "true";
})();
