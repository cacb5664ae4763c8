"use strict";
// One cell is picked: the page's own choice until a click, Enter or a permalink pins another. Until then the pointer
// shows a cell as long as it is on it.

const ANCHOR = /^#cell=(.+)$/;

class Picking {
  constructor(page, views) {
    this.page = page;
    this.views = views;
    this.picked = page.picked;
    this.pinned = false;
    this.glanced = null;
    this.drawn = {};
    this.drawing = null;
    this.linked = Object.keys(page.charts).filter((id) => page.charts[id].params?.some(({ name }) => name === "picked"));
    this.places = new Map(this.tiles().map((tile) => [tile.cell, tile]));
  }

  get shown() {
    return this.glanced ?? this.picked;
  }

  tiles() {
    const tables = Object.values(this.page.charts.phase.datasets);
    return tables.flat().filter(({ cell }) => cell in this.page.cells);
  }

  pin(id, { inAddress = true } = {}) {
    if (!(id in this.page.cells)) return null;
    Object.assign(this, { picked: id, pinned: true, glanced: null });
    if (inAddress) history.replaceState(null, "", `#cell=${id}`);
    return this.draw();
  }

  free() {
    Object.assign(this, { picked: this.page.picked, pinned: false, glanced: null });
    if (ANCHOR.test(location.hash)) history.replaceState(null, "", location.pathname + location.search);
    return this.draw();
  }

  // Show a cell without picking it; with null, the picked one again. A pinned cell stays.
  glance(id) {
    const known = id in this.page.cells && !this.pinned ? id : null;
    if (known === this.glanced) return null;
    this.glanced = known;
    return this.draw();
  }

  followAddress() {
    const found = ANCHOR.exec(location.hash);
    if (!found) return null;
    const drawn = this.pin(decodeURIComponent(found[1]), { inAddress: false });
    return drawn?.then(() => this.reveal());
  }

  // Scroll to what is shown of the cell, unless it can be seen.
  reveal() {
    const panel = document.getElementById("cell");
    const { top, bottom } = panel.getBoundingClientRect();
    if (bottom < 80 || top > innerHeight - 80) panel.scrollIntoView({ block: "start" });
  }

  // The nearest cell of the same map in a direction, else the same place in the map before or after.
  neighbour(id, dx, dy) {
    const { panel, x = 0, y = 0 } = this.places.get(id);
    const tiles = [...this.places.values()];
    const ahead = tiles
      .filter((tile) => tile.panel === panel && (dx ? (tile.x - x) * dx > 0 : tile.x === undefined || tile.x === x))
      .filter((tile) => (dy ? ((tile.y ?? 0) - y) * dy > 0 : (tile.y ?? 0) === y))
      .sort((a, b) => Math.abs(a.x - x) + Math.abs((a.y ?? 0) - y) - Math.abs(b.x - x) - Math.abs((b.y ?? 0) - y));
    if (ahead.length > 0) return ahead[0].cell;
    const panels = [...new Set(tiles.map((tile) => tile.panel))];
    const next = panels[panels.indexOf(panel) + (dx || -dy)];
    const there = tiles.filter((tile) => tile.panel === next);
    return (there.find((tile) => (tile.x ?? 0) === x && (tile.y ?? 0) === y) ?? there[0])?.cell ?? id;
  }

  move(dx, dy) {
    const next = this.neighbour(this.shown, dx, dy);
    return this.pinned ? this.pin(next) : this.glance(next);
  }

  // A cell that is left before it was drawn is passed over: drawing many tiles takes longer than moving across them.
  draw() {
    this.drawing ??= this.catchUp().finally(() => (this.drawing = null));
    return this.drawing;
  }

  async catchUp() {
    const wanted = () => ({ shown: this.shown, picked: this.picked, pinned: this.pinned });
    const differs = (now) => Object.entries(now).some(([name, value]) => this.drawn[name] !== value);
    for (let now = wanted(); differs(now); now = wanted()) {
      const before = this.drawn;
      this.drawn = now;
      this.describe(now);
      if (before.shown !== now.shown) await this.drawCell(now.shown);
      for (const id of this.linked) await this.views[id].signal("picked", now.picked).signal("shown", now.shown).runAsync();
    }
  }

  describe({ shown, picked, pinned }) {
    const element = (id) => document.getElementById(id);
    const cell = this.page.cells[shown];
    element("cell").dataset.cell = shown;
    element("cell").dataset.pinned = pinned && shown === picked;
    element("cell-place").textContent = cell.place;
    element("cell-verdict").textContent = cell.verdict;
    element("cell-verdict").className = `chip ${cell.verdict}`;
    element("cell-reason").textContent = cell.reason;
    element("cell-link").href = `#cell=${shown}`;
    element("pin").textContent = pinned && shown === picked ? "Unpin" : "Pin";
    element("pin").setAttribute("aria-pressed", pinned && shown === picked);
    element("cell-numbers").replaceChildren(
      ...Object.entries(cell.numbers).flatMap(([name, value]) => {
        const term = document.createElement("dt");
        const description = document.createElement("dd");
        term.textContent = name;
        description.textContent = value;
        return [term, description];
      }),
    );
    for (const row of document.querySelectorAll("tr.picked")) row.classList.remove("picked");
    for (const row of document.querySelectorAll(`tr[data-cell="${shown}"]`)) row.classList.add("picked");
  }

  // A cell without curves leaves the last ones in place, out of sight: an empty chart has no scales.
  async drawCell(id) {
    for (const [name, rowsOf] of Object.entries(OF_CELL)) {
      const rows = name in this.views ? rowsOf(this.page, this.page.cells[id]) : [];
      document.getElementById(`${name}-part`).hidden = rows.length === 0;
      if (rows.length > 0) await this.views[name].data(name, rows).runAsync();
    }
  }

  // Charts that were drawn again know nothing of what is picked.
  redraw() {
    this.drawn = {};
    return this.draw();
  }

  listen() {
    let last = [null, null];
    // Browsers also send these while the page moves under a pointer at rest.
    const moved = ({ screenX, screenY }) => {
      const before = last;
      last = [screenX, screenY];
      return before[0] !== screenX || before[1] !== screenY;
    };
    document.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch" || !moved(event)) return;
      this.glance(this.cellUnder(event.target));
    });
    document.addEventListener("click", (event) => {
      if (event.target.closest("a, button, summary") || getSelection().toString()) return;
      const id = this.cellUnder(event.target);
      if (id === null) return;
      if (this.pinned && id === this.picked) this.free();
      else this.pin(id)?.then(() => this.reveal());
    });
    document.addEventListener("keydown", (event) => this.onKey(event));
    document.getElementById("pin").addEventListener("click", () => {
      if (this.pinned && this.shown === this.picked) this.free();
      else this.pin(this.shown);
    });
    document.getElementById("phase").addEventListener("blur", () => this.glance(null));
    addEventListener("hashchange", () => this.followAddress());
  }

  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") this.free();
    if (!event.target.closest("#phase")) return;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (way) this.move(...way);
    else if (event.key === "Enter" || event.key === " ") this.pin(this.shown);
    else return;
    event.preventDefault();
    const cell = this.page.cells[this.shown];
    document.getElementById("said").textContent = `${cell.place}: ${cell.verdict}${this.pinned ? ", pinned" : ""}`;
  }

  // Of a mark, of what a canvas shows under the pointer, or of a row; null elsewhere.
  cellUnder(target) {
    const row = target.closest?.("tr[data-cell]");
    if (row) return row.dataset.cell;
    const chart = target.closest?.(".chart");
    if (!chart || !this.linked.includes(chart.id)) return null;
    return this.under?.[chart.id] ?? null;
  }

  // Vega knows which cell a mark belongs to, in either renderer.
  watch(id) {
    if (!this.linked.includes(id)) return;
    this.under ??= {};
    const found = (_, item) => (this.under[id] = item?.datum?.cell ?? null);
    for (const type of ["pointermove", "pointerdown", "click"]) this.views[id].addEventListener(type, found);
  }
}
