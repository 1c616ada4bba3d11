"use strict";
// Charts as inline SVG: lines, bars, points. Each shows its values at the pointer and, when focused, with the arrow keys.
const payload = JSON.parse(document.getElementById("payload").textContent);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function svg(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "style") made.style.cssText = value;
    else made.setAttribute(key, value);
  }
  if (parent) parent.append(made);
  return made;
}

function shown(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) < 0.001 ? Number(value.toPrecision(3)).toExponential() : String(Number(value.toPrecision(3)));
}

function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const places = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) {
    places.push(Number((k * step).toPrecision(12)));
  }
  return places;
}

function logTicks(low, high) {
  const places = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of [1, 2, 5]) {
      const place = Number((factor * 10 ** power).toPrecision(3));
      if (place >= low && place <= high) places.push(place);
    }
  }
  return places;
}

class Chart {
  constructor(host, spec) {
    this.spec = spec;
    this.hidden = new Set();
    this.active = -1;
    this.legend = element("div", { className: "chart-legend" });
    this.plot = element("div", { className: "plot", tabIndex: 0 });
    this.plot.setAttribute("role", "group");
    this.plot.setAttribute("aria-label", `${spec.title}; arrow keys read the values`);
    this.tip = element("div", { className: "tip", hidden: true });
    this.tip.setAttribute("role", "status");
    const figure = element("figure", { className: "chart", style: "margin:0" });
    figure.append(element("h3", { textContent: spec.title }), this.legend, this.plot);
    if (spec.note) figure.append(element("p", { className: "hint", textContent: spec.note }));
    host.append(figure);
    this.buildLegend();
    new ResizeObserver(() => this.draw()).observe(this.plot);
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerdown", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.show(-1));
    this.plot.addEventListener("blur", () => this.show(-1));
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.plot.addEventListener("click", () => this.open());
  }

  buildLegend() {
    if (this.spec.series.length < 2) return;
    this.spec.series.forEach((series, place) => {
      const button = element("button", { type: "button" }, element("i", { style: `background:${series.color}` }), series.name);
      if (this.spec.last) {
        const last = series.values.findLast((value) => value !== null);
        button.append(` ${shown(last)}`);
      }
      button.setAttribute("aria-pressed", "true");
      button.addEventListener("click", () => {
        if (!this.hidden.delete(place)) this.hidden.add(place);
        button.setAttribute("aria-pressed", String(!this.hidden.has(place)));
        this.show(-1);
        this.draw();
      });
      this.legend.append(button);
    });
  }

  visible() {
    return this.spec.series.filter((_, place) => !this.hidden.has(place));
  }

  draw() {
    const width = Math.max(220, this.plot.clientWidth);
    const height = Math.round(Math.min(300, Math.max(200, width * 0.52)));
    if (!this.plot.clientWidth) return;
    this.area = { left: 46, right: width - 12, top: 8, bottom: height - 36 };
    this.root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": this.spec.title });
    this.scale();
    this.axes();
    ({ line: () => this.lines(), bars: () => this.bars(), scatter: () => this.points() })[this.spec.kind]();
    this.cursor = svg("g", {}, this.root);
    this.plot.replaceChildren(this.root, this.tip);
  }

  scale() {
    const { spec, area } = this;
    const series = this.visible();
    const values = series.flatMap((own) => own.values).filter((value) => value !== null && (!spec.log || value > 0));
    let [low, high] = [Math.min(0, ...values), Math.max(...values, 0)];
    if (spec.log && values.length) [low, high] = [Math.min(...values) / 1.3, Math.max(...values) * 1.3];
    if (!(high > low)) high = low + 1;
    if (!spec.log) high += (high - low) * 0.06;
    const bend = spec.log ? Math.log : (value) => value;
    const clamp = (value) => (spec.log ? Math.max(value, low) : value);
    const rise = (area.bottom - area.top) / (bend(high) - bend(low));
    this.y = (value) => Math.max(area.top - 4, area.bottom - (bend(clamp(value)) - bend(low)) * rise);
    this.yTicks = spec.log ? logTicks(low, high) : ticks(low, high, 5);
    if (spec.kind === "bars") {
      const step = (area.right - area.left) / (spec.edges.length - 1);
      this.x = (place) => area.left + place * step;
      const places = (spec.ticks || spec.edges).map((edge) => spec.edges.indexOf(edge));
      const every = Math.ceil((44 * places.length) / (area.right - area.left));
      this.xTicks = places.filter((_, k) => k % every === 0).map((place) => [place, shown(spec.edges[place])]);
      return;
    }
    const all = spec.series.flatMap((own) => own.at);
    let [first, last] = [Math.min(...all), Math.max(...all)];
    if (spec.kind === "scatter") [first, last] = [0, Math.max(last, 1) * 1.04];
    if (!(last > first)) [first, last] = [Math.min(0, first), Math.max(last, 1)];
    this.x = (value) => area.left + ((value - first) / (last - first)) * (area.right - area.left);
    this.xTicks = ticks(first, last, Math.max(4, Math.floor(area.right / 90))).map((place) => [place, shown(place)]);
    this.range = [first, last, low, high];
  }

  axes() {
    const { area, root, spec } = this;
    for (const value of this.yTicks) {
      const y = this.y(value);
      svg("line", { class: "grid", x1: area.left, x2: area.right, y1: y, y2: y }, root);
      svg("text", { x: area.left - 6, y: y + 4, "text-anchor": "end" }, root).textContent = shown(value);
    }
    for (const [place, text] of this.xTicks) {
      svg("text", { x: this.x(place), y: area.bottom + 16, "text-anchor": "middle" }, root).textContent = text;
    }
    svg("line", { class: "axis", x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom }, root);
    const middle = (area.left + area.right) / 2;
    svg("text", { x: middle, y: area.bottom + 32, "text-anchor": "middle" }, root).textContent = spec.x;
    if (spec.y) svg("text", { x: area.left, y: area.top + 2, "text-anchor": "start", dx: 5, dy: 8 }, root).textContent = spec.y;
  }

  lines() {
    for (const series of this.visible()) {
      if (series.band) this.band(series);
      let path = "";
      let pen = "M";
      series.values.forEach((value, place) => {
        if (value === null) { pen = "M"; return; }
        path += `${pen}${this.x(series.at[place]).toFixed(1)} ${this.y(value).toFixed(1)}`;
        pen = "L";
      });
      const style = `stroke:${series.color};fill:none;stroke-width:${series.bold ? 2.4 : 1.6};stroke-linejoin:round`;
      svg("path", { d: path, style }, this.root);
      if (series.dots || series.values.length === 1) {
        series.values.forEach((value, place) => {
          if (value === null) return;
          svg("circle", { cx: this.x(series.at[place]), cy: this.y(value), r: 3, style: `fill:${series.color}` }, this.root);
        });
      }
    }
    const { mark } = this.spec;
    if (!mark || this.hidden.has(0)) return;
    const [x, y] = [this.x(mark.at), this.y(mark.value)];
    svg("circle", { cx: x, cy: y, r: 6, style: "fill:none;stroke:var(--ink);stroke-width:2" }, this.root);
    const right = x > (this.area.left + this.area.right) / 2;
    const attributes = { class: "mark", x: x + (right ? -10 : 10), y: y - 8, "text-anchor": right ? "end" : "start" };
    svg("text", attributes, this.root).textContent = mark.text;
  }

  band(series) {
    const points = series.band.map((pair, place) => [series.at[place], ...pair]).filter(([, low]) => low !== null);
    if (!points.length) return;
    const upper = points.map(([at, , high]) => `${this.x(at).toFixed(1)} ${this.y(high).toFixed(1)}`);
    const lower = points.map(([at, low]) => `${this.x(at).toFixed(1)} ${this.y(low).toFixed(1)}`).reverse();
    const style = "fill:var(--band);stroke:var(--band);stroke-width:1";
    svg("path", { d: `M${[...upper, ...lower].join("L")}Z`, style }, this.root);
  }

  bars() {
    const { area } = this;
    for (const series of this.visible()) {
      if (series.step) {
        let path = `M${this.x(0)} ${area.bottom}`;
        series.values.forEach((value, place) => { path += `V${this.y(value).toFixed(1)}H${this.x(place + 1).toFixed(1)}`; });
        svg("path", { d: `${path}V${area.bottom}`, style: `stroke:${series.color};fill:none;stroke-width:2` }, this.root);
        continue;
      }
      series.values.forEach((value, place) => {
        const [left, top] = [this.x(place), this.y(value)];
        const size = { x: left + 0.5, y: top, width: Math.max(0.5, this.x(place + 1) - left - 1), height: area.bottom - top };
        svg("rect", { ...size, style: `fill:${series.color}` }, this.root);
      });
    }
  }

  points() {
    const end = Math.min(this.range[1], this.range[3]);
    const line = { class: "cursor", x1: this.x(0), y1: this.y(0), x2: this.x(end), y2: this.y(end) };
    svg("line", line, this.root);
    for (const series of this.visible()) {
      series.values.forEach((value, place) => {
        const style = `fill:${series.color};fill-opacity:.75`;
        svg("circle", { cx: this.x(series.at[place]), cy: this.y(value), r: 4.5, style }, this.root);
      });
    }
  }

  // What the pointer or the arrow keys can stop at, from left to right: x and y in the plot, a head and its rows.
  stops() {
    const series = this.visible();
    if (this.spec.kind === "scatter") {
      const stops = series.flatMap((own) => own.values.map((value, place) => ({
        x: this.x(own.at[place]), y: this.y(value), head: own.labels[place],
        rows: [[own.color, own.name, ""], [null, "true", own.at[place]], [null, "predicted", value]],
      })));
      return stops.sort((a, b) => a.x - b.x);
    }
    if (this.spec.kind === "bars") {
      return this.spec.edges.slice(1).map((edge, place) => ({
        x: this.x(place + 0.5),
        head: `${this.spec.x}: ${[...new Set([this.spec.edges[place], edge - 1])].map(shown).join(" … ")}`,
        rows: series.map((own) => [own.color, own.name, own.values[place]]),
      }));
    }
    const values = new Map();
    for (const own of series) {
      own.at.forEach((at, place) => {
        if (!values.has(at)) values.set(at, []);
        values.get(at).push([own.color, own.name, own.values[place], own.values[place]]);
      });
    }
    return [...values].sort((a, b) => a[0] - b[0]).map(([at, rows]) => ({
      x: this.x(at), head: `${this.spec.x} ${shown(at)}`, rows,
    }));
  }

  point(event) {
    if (!this.root) return;
    const box = this.root.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const stops = this.stops();
    let best = -1;
    let least = Infinity;
    stops.forEach((stop, place) => {
      const away = Math.hypot(stop.x - x, stop.y === undefined ? 0 : stop.y - y);
      if (away < least) [best, least] = [place, away];
    });
    this.show(this.spec.kind === "scatter" && least > 40 ? -1 : best);
  }

  key(event) {
    const count = this.stops().length;
    const moves = { ArrowRight: this.active + 1, ArrowLeft: this.active < 0 ? count - 1 : this.active - 1, Home: 0, End: count - 1 };
    if (event.key in moves) {
      event.preventDefault();
      this.show(Math.min(count - 1, Math.max(0, moves[event.key])));
    } else if (event.key === "Escape") this.show(-1);
    else if (event.key === "Enter") this.open();
  }

  show(place) {
    this.active = place;
    this.tip.hidden = place < 0;
    if (!this.cursor) return;
    this.cursor.replaceChildren();
    if (place < 0) return;
    const stop = this.stops()[place];
    if (stop.y === undefined) {
      svg("line", { class: "cursor", x1: stop.x, x2: stop.x, y1: this.area.top, y2: this.area.bottom }, this.cursor);
      for (const [color, , , value] of stop.rows) {
        if (typeof value !== "number") continue;
        svg("circle", { cx: stop.x, cy: this.y(value), r: 3.5, style: `fill:${color}` }, this.cursor);
      }
    } else svg("circle", { cx: stop.x, cy: stop.y, r: 8, style: "fill:none;stroke:var(--ink);stroke-width:2" }, this.cursor);
    const rows = stop.rows.map(([color, name, value]) => {
      const label = element("span", {}, name);
      if (color) label.prepend(element("i", { style: `background:${color}` }));
      return element("div", {}, label, element("b", { textContent: value === "" ? "" : shown(value) }));
    });
    this.tip.replaceChildren(element("b", { textContent: stop.head }), ...rows);
    const room = this.plot.clientWidth - this.tip.offsetWidth;
    const left = stop.x > this.plot.clientWidth / 2 ? stop.x - this.tip.offsetWidth - 12 : stop.x + 12;
    this.tip.style.left = `${Math.max(0, Math.min(room, left))}px`;
    this.tip.style.top = `${stop.y === undefined ? this.area.top : Math.max(0, stop.y - 30)}px`;
  }

  open() {
    if (this.spec.kind !== "scatter" || this.active < 0) return;
    document.dispatchEvent(new CustomEvent("open-picture", { detail: this.stops()[this.active].head }));
  }
}

for (const host of document.querySelectorAll("[data-charts]")) {
  for (const spec of payload[host.dataset.charts]) new Chart(host, spec);
}
