// A canvas that can be moved, zoomed and read: by mouse, fingers and keys.
const views = [];
const nice = (low, high, most) => {
  const raw = (high - low) / Math.max(most, 1), power = 10 ** Math.floor(Math.log10(raw));
  const step = power * (raw / power <= 1 ? 1 : raw / power <= 2 ? 2 : raw / power <= 5 ? 5 : 10);
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high + step * 1e-9; k++) ticks.push(k * step);
  return { step, ticks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
};

class View {
  // options: label; margins [left, right, top, bottom] px; height(width) px; y: may y be zoomed; square: km are km
  constructor(id, options) {
    Object.assign(this, { y: true, square: false, hint: "", most: 4000 }, options);
    this.figure = byId(id);
    const label = `${this.label}. Arrows move, plus and minus zoom, 0 shows all, comma and full stop change the event.`;
    this.canvas = make("canvas", { tabindex: 0, role: "application", "aria-roledescription": "chart", "aria-label": label });
    const button = (text, name, act) => make("button", { type: "button", "aria-label": `${name}: ${this.label}`, title: name, on: { click: act } }, text);
    this.bar = make("div", { class: "zoom" }, button("+", "zoom in", () => this.zoom(1.6)), button("−", "zoom out", () => this.zoom(1 / 1.6)), button("0", "show all", () => this.reset()));
    this.figure.append(make("div", { class: "canvas" }, this.canvas, this.bar));
    this.auto = true;
    this.pointers = new Map();
    this.listen();
    new ResizeObserver(() => requestAnimationFrame(() => this.resize())).observe(this.figure);
    views.push(this);
  }

  setFull(x, y) {
    this.full = { x, y };
    if (this.auto) this.now = { x: [...x], y: [...y] };
    this.fit();
    this.dirty();
  }

  resize() {
    const width = Math.floor(this.figure.clientWidth);
    if (!width || width === this.width) return;
    this.width = width;
    this.tall = Math.round(this.height(width));
    this.density = Math.min(3, devicePixelRatio || 1);
    this.canvas.width = Math.round(this.width * this.density);
    this.canvas.height = Math.round(this.tall * this.density);
    this.canvas.style.height = `${this.tall}px`;
    if (this.auto && this.full) this.now = { x: [...this.full.x], y: [...this.full.y] };
    this.fit();
    this.changed();
    this.paintNow();
  }

  get inner() {
    const [left, right, top, bottom] = this.margins;
    return { left, top, wide: Math.max(10, this.width - left - right), high: Math.max(10, this.tall - top - bottom) };
  }

  // A square view shows more in one direction rather than less in the other.
  fit() {
    if (!this.square || !this.width || !this.now) return;
    const { wide, high } = this.inner, { x, y } = this.now;
    const scale = Math.max((x[1] - x[0]) / wide, (y[1] - y[0]) / high);
    for (const [range, size] of [[x, wide], [y, high]]) {
      const middle = (range[0] + range[1]) / 2;
      [range[0], range[1]] = [middle - (scale * size) / 2, middle + (scale * size) / 2];
    }
  }

  px(x) { const { left, wide } = this.inner; return left + ((x - this.now.x[0]) / (this.now.x[1] - this.now.x[0])) * wide; }
  py(y) { const { top, high } = this.inner; return top + ((y - this.now.y[0]) / (this.now.y[1] - this.now.y[0])) * high; }
  at(px, py) {
    const { left, top, wide, high } = this.inner, { x, y } = this.now;
    return [x[0] + ((px - left) / wide) * (x[1] - x[0]), y[0] + ((py - top) / high) * (y[1] - y[0])];
  }

  zoom(factor, centre) {
    const { x, y } = this.now, [cx, cy] = centre || [(x[0] + x[1]) / 2, (y[0] + y[1]) / 2];
    const scale = (range, full, c) => {
      const size = range[1] - range[0], whole = full[1] - full[0];
      const k = Math.min(Math.max(size / factor, whole / this.most), whole * (this.square ? 3 : 1)) / size;
      [range[0], range[1]] = [c - (c - range[0]) * k, c + (range[1] - c) * k];
    };
    scale(x, this.full.x, cx);
    if (this.y) scale(y, this.full.y, cy);
    this.moved();
  }

  pan(dx, dy) {
    const { wide, high } = this.inner, { x, y } = this.now;
    const shift = (range, by) => { range[0] += by; range[1] += by; };
    shift(x, (-dx / wide) * (x[1] - x[0]));
    if (this.y) shift(y, (-dy / high) * (y[1] - y[0]));
    this.moved();
  }

  reset() {
    this.auto = true;
    this.now = { x: [...this.full.x], y: [...this.full.y] };
    this.fit();
    this.changed();
    this.dirty();
  }

  // What is shown stays where something is.
  moved() {
    this.auto = false;
    for (const axis of this.y ? ["x", "y"] : ["x"]) {
      const range = this.now[axis], full = this.full[axis], size = range[1] - range[0];
      const room = this.square ? size / 2 : 0, low = full[0] - room, high = full[1] + room;
      const by = range[0] < low ? low - range[0] : range[1] > high ? high - range[1] : 0;
      if (size <= high - low) { range[0] += by; range[1] += by; }
    }
    this.fit();
    this.changed();
    this.dirty();
  }

  changed() {}
  tip() { return ""; }
  click() {}

  listen() {
    const canvas = this.canvas, place = (e) => { const box = canvas.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; };
    canvas.addEventListener("pointerdown", (e) => {
      if (e.button) return;
      canvas.setPointerCapture(e.pointerId);
      this.pointers.set(e.pointerId, place(e));
      this.travel = this.pointers.size > 1 ? 99 : 0;
    });
    canvas.addEventListener("pointermove", (e) => {
      const at = place(e), before = this.pointers.get(e.pointerId);
      if (!before) return this.hover(at, e);
      const [dx, dy] = [at[0] - before[0], at[1] - before[1]];
      this.travel += Math.hypot(dx, dy);
      if (this.pointers.size === 2) {
        const other = [...this.pointers].find(([id]) => id !== e.pointerId)[1];
        const size = (p) => Math.max(20, Math.hypot(p[0] - other[0], p[1] - other[1]));
        this.pan(dx / 2, dy / 2);
        this.zoom(size(at) / size(before), this.at((at[0] + other[0]) / 2, (at[1] + other[1]) / 2));
      } else if (this.travel > 4) this.pan(dx, dy);
      this.pointers.set(e.pointerId, at);
    });
    const up = (e) => {
      if (this.pointers.delete(e.pointerId) && e.type === "pointerup" && this.travel <= 4) this.click(place(e));
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => hint.hide());
    canvas.addEventListener("dblclick", (e) => this.zoom(2, this.at(...place(e))));
    canvas.addEventListener("wheel", (e) => {
      if (!e.ctrlKey && document.activeElement !== canvas) return;
      e.preventDefault();
      this.zoom(Math.exp(-e.deltaY * 0.0015), this.at(...place(e)));
    }, { passive: false });
    canvas.addEventListener("keydown", (e) => this.key(e));
  }

  key(e) {
    const step = 40, keys = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (keys[e.key] && (this.y || e.key === "ArrowLeft" || e.key === "ArrowRight")) this.pan(...keys[e.key]);
    else if (e.key === "+" || e.key === "=") this.zoom(1.4);
    else if (e.key === "-") this.zoom(1 / 1.4);
    else if (e.key === "0") this.reset();
    else if (e.key === "," || e.key === ".") neighbour(e.key === "." ? 1 : -1);
    else return;
    e.preventDefault();
  }

  hover(at, e) {
    const told = this.tip(at);
    this.canvas.style.cursor = told ? "pointer" : "grab";
    if (told) hint.show(told, e.clientX, e.clientY);
    else hint.hide();
  }

  dirty() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.paintNow(); });
  }

  paintNow() {
    if (!this.width || !this.now) return;
    const c = this.canvas.getContext("2d");
    c.setTransform(this.density, 0, 0, this.density, 0, 0);
    c.clearRect(0, 0, this.width, this.tall);
    c.font = "11px system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, Liberation Sans, Arial, sans-serif";
    c.lineJoin = "round";
    this.paint(c);
  }

  inside(c, work) {
    const { left, top, wide, high } = this.inner;
    c.save();
    c.beginPath();
    c.rect(left, top, wide, high);
    c.clip();
    work();
    c.restore();
  }

  // Lines and labels; ticks are [value, text].
  axis(c, side, ticks) {
    const { left, top, wide, high } = this.inner, flat = side === "x";
    c.fillStyle = colours.soft;
    c.textAlign = flat ? "center" : "right";
    c.textBaseline = flat ? "top" : "middle";
    for (const [value, text] of ticks) {
      const p = Math.round(flat ? this.px(value) : this.py(value)) + 0.5;
      if (flat ? p < left || p > left + wide + 1 : p < top || p > top + high + 1) continue;
      c.strokeStyle = colours.line;
      c.lineWidth = 1;
      c.beginPath();
      if (flat) { c.moveTo(p, top); c.lineTo(p, top + high); } else { c.moveTo(left, p); c.lineTo(left + wide, p); }
      c.stroke();
      const half = flat ? c.measureText(text).width / 2 : 0;
      if (flat) c.fillText(text, Math.min(Math.max(p, half + 1), this.width - half - 1), top + high + 5);
      else c.fillText(text, left - 5, Math.min(Math.max(p, top + 5), top + high - 4));
    }
  }

  frame(c) {
    const { left, top, wide, high } = this.inner;
    c.strokeStyle = colours.soft;
    c.lineWidth = 1;
    c.strokeRect(left + 0.5, top + 0.5, wide - 1, high - 1);
  }
}

// What is under the pointer, in words.
const hint = {
  box: document.body.appendChild(make("div", { id: "hint", role: "tooltip", hidden: true })),
  show(text, x, y) {
    this.box.textContent = text;
    this.box.hidden = false;
    const { offsetWidth: w, offsetHeight: h } = this.box;
    this.box.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - w - 6))}px`;
    this.box.style.top = `${y + 18 + h > innerHeight ? y - h - 10 : y + 18}px`;
  },
  hide() { this.box.hidden = true; },
};

// Marks: each status has a colour and a shape of its own.
const diameter = (i, crowd) => crowd * 1.33 * Math.min(40, Math.max(2.2, Number.isFinite(MAG[i]) ? 2.8 * 1.55 ** MAG[i] : 3.6));
const mark = (c, name, x, y, r) => {
  const colour = colours[LOOK[name] || "grey"];
  c.beginPath();
  if (name === "missed") { c.rect(x - r, y - r, 2 * r, 2 * r); c.strokeStyle = colour; c.lineWidth = 1.6; c.stroke(); return; }
  if (name === "new") { c.moveTo(x, y - 1.25 * r); c.lineTo(x + 1.25 * r, y); c.lineTo(x, y + 1.25 * r); c.lineTo(x - 1.25 * r, y); c.closePath(); }
  else c.arc(x, y, r, 0, 7);
  c.globalAlpha = 0.75;
  c.fillStyle = colour;
  c.fill();
  c.globalAlpha = 1;
  c.strokeStyle = colours.paper;
  c.lineWidth = 0.6;
  c.stroke();
};
const triangle = (c, x, y, r) => {
  c.beginPath();
  c.moveTo(x, y - r); c.lineTo(x + r * 0.9, y + r * 0.7); c.lineTo(x - r * 0.9, y + r * 0.7); c.closePath();
  c.fillStyle = colours.paper;
  c.fill();
  c.strokeStyle = colours.ink;
  c.lineWidth = 1;
  c.stroke();
};
