// The map, the sections and the time line.
const order = Array.from({ length: N }, (_, i) => i).sort((a, b) => (MAG[b] || 0) - (MAG[a] || 0) || a - b); // small ones on top

class EventView extends View {
  // What is drawn: `where(i)` in the view's own units, y downwards; `wanted(i)` whether this event is.
  place() {
    this.sx = this.sx || new Float32Array(N).fill(NaN);
    this.sy = this.sy || new Float32Array(N).fill(NaN);
    let n = 0;
    const { x, y } = this.now;
    for (let i = 0; i < N; i++) {
      const [a, b] = shown[i] && this.wanted(i) ? this.where(i) : [NaN, NaN];
      const inView = a >= x[0] && a <= x[1] && b >= y[0] && b <= y[1];
      this.sx[i] = inView ? this.px(a) : NaN;
      this.sy[i] = inView ? this.py(b) : NaN;
      n += inView;
    }
    this.n = n;
    this.crowd = Math.min(1, Math.max(0.45, Math.sqrt(400 / Math.max(n, 1))));
  }

  wanted() { return true; }

  events(c) {
    for (const i of order) if (this.sx[i] === this.sx[i]) mark(c, status(i), this.sx[i], this.sy[i], diameter(i, this.crowd) / 2);
    const i = choice.selected;
    if (i < 0) return;
    const [a, b] = this.where(i);
    c.strokeStyle = colours.ink;
    c.lineWidth = 2;
    c.beginPath();
    c.arc(this.px(a), this.py(b), diameter(i, this.crowd) / 2 + 6, 0, 7);
    c.stroke();
  }

  nearest([x, y]) {
    let best = -1, least = 14 * 14;
    for (let i = 0; i < N; i++) {
      const d = (this.sx[i] - x) ** 2 + (this.sy[i] - y) ** 2;
      if (d < least) { least = d; best = i; }
    }
    return best;
  }

  tip(at) {
    const i = this.nearest(at);
    return i < 0 ? "" : titleOf(i);
  }

  click(at) {
    const i = this.nearest(at);
    if (i >= 0) choose(i, { show: true });
  }
}

const titleOf = (i) => {
  const size = Number.isFinite(MAG[i]) ? `M ${number(MAG[i], 1)}, ` : "", place = Number.isFinite(DEPTH[i]) ? `, ${number(DEPTH[i], 1)} km deep` : "";
  return `${instant(TIME[i], 1)} UTC\n${size}${status(i)}${place}${why(i) ? `\n${why(i)}` : ""}`;
};
const bounds = (values, room, least) => {
  let [low, high] = [Infinity, -Infinity];
  for (const v of values) if (Number.isFinite(v)) { low = Math.min(low, v); high = Math.max(high, v); }
  if (low > high) [low, high] = [-least / 2, least / 2];
  const middle = (low + high) / 2, half = Math.max((high - low) * (0.5 + room), least / 2);
  return [middle - half, middle + half];
};

const SX = SITES.lon.map(east), SY = SITES.lat.map(north);
// Which way the epicentres stretch (degrees from north, 0 to 179), by their covariance.
const strike = (() => {
  // Of those that are not far from all others: a lone one would turn it.
  const away = X.map((x, i) => Math.hypot(x, Y[i])), limit = 4 * median(away) + 1e-9;
  let [n, mx, my, xx, xy, yy] = [0, 0, 0, 0, 0, 0];
  for (let i = 0; i < N; i++) if (away[i] <= limit) { n++; mx += X[i]; my += Y[i]; }
  [mx, my] = [mx / (n || 1), my / (n || 1)];
  for (let i = 0; i < N; i++) if (away[i] <= limit) { const [a, b] = [X[i] - mx, Y[i] - my]; xx += a * a; xy += a * b; yy += b * b; }
  const angle = 0.5 * Math.atan2(2 * xy, xx - yy) / RADIANS; // of the long axis, anticlockwise from east
  return { degrees: ((Math.round(90 - angle) % 180) + 180) % 180, x: mx, y: my };
})();
const turn = { degrees: strike.degrees };
const along = (degrees, x, y) => (x - strike.x) * Math.sin(degrees * RADIANS) + (y - strike.y) * Math.cos(degrees * RADIANS);

class Plan extends EventView {
  where(i) { return [X[i], -Y[i]]; }
  changed() {
    const { x, y } = this.now;
    choice.box = this.auto ? null : [x[0], x[1], -y[1], -y[0]];
    soon("box");
  }

  paint(c) {
    this.place();
    const { x, y } = this.now, degrees = (low, high, most, k, middle) => {
      const t = nice(low / k + middle, high / k + middle, most);
      return t.ticks.map((v) => [(v - middle) * k, `${v.toFixed(t.digits)}°`]);
    };
    this.axis(c, "x", degrees(x[0], x[1], this.width / 75, KMX, MID[1]));
    this.axis(c, "y", degrees(-y[1], -y[0], this.tall / 80, KMY, MID[0]).map(([v, text]) => [-v, text]));
    this.inside(c, () => {
      this.lines(c);
      this.sites(c);
      if (this.n <= 3000) this.displacements(c);
      this.events(c);
      this.ellipse(c);
      this.scale(c);
    });
    this.frame(c);
  }

  lines(c) {
    const reach = 4 * Math.max(this.now.x[1] - this.now.x[0], this.now.y[1] - this.now.y[0]);
    const { left, top, wide, high } = this.inner;
    for (const [degrees, name] of [[turn.degrees, "A"], [turn.degrees + 90, "B"]]) {
      const [u, v] = [Math.sin(degrees * RADIANS), Math.cos(degrees * RADIANS)];
      c.strokeStyle = colours.soft;
      c.lineWidth = 1;
      c.setLineDash([5, 4]);
      c.beginPath();
      c.moveTo(this.px(strike.x - reach * u), this.py(-strike.y + reach * v));
      c.lineTo(this.px(strike.x + reach * u), this.py(-strike.y - reach * v));
      c.stroke();
      c.setLineDash([]);
      // The letters stand where the line leaves the map.
      const [px, py] = [this.px(strike.x), this.py(-strike.y)];
      for (const [sign, text] of [[-1, name], [1, `${name}′`]]) {
        const [dx, dy] = [sign * u, -sign * v];
        const k = Math.min(dx > 0 ? (left + wide - 14 - px) / dx : dx < 0 ? (left + 14 - px) / dx : Infinity, dy > 0 ? (top + high - 12 - py) / dy : dy < 0 ? (top + 12 - py) / dy : Infinity);
        if (!(k > 0)) continue;
        c.font = "bold 12px system-ui, sans-serif";
        c.textAlign = "center";
        c.textBaseline = "middle";
        c.fillStyle = colours.paper;
        c.fillRect(px + k * dx - 9, py + k * dy - 8, 18, 16);
        c.fillStyle = colours.soft;
        c.fillText(text, px + k * dx, py + k * dy);
      }
    }
    c.font = "11px system-ui, sans-serif";
  }

  displacements(c) {
    if (!E.tlat) return;
    c.strokeStyle = colours.ink;
    c.globalAlpha = 0.5;
    c.lineWidth = 1;
    c.beginPath();
    for (let i = 0; i < N; i++) {
      if (this.sx[i] !== this.sx[i] || E.tlat[i] === null) continue;
      c.moveTo(this.sx[i], this.sy[i]);
      c.lineTo(this.px(east(E.tlon[i])), this.py(-north(E.tlat[i])));
    }
    c.stroke();
    c.globalAlpha = 1;
  }

  sites(c) {
    const { left, top, wide, high } = this.inner, at = [];
    for (let k = 0; k < SX.length; k++) {
      const [px, py] = [this.px(SX[k]), this.py(-SY[k])];
      if (px > left && px < left + wide && py > top && py < top + high) at.push([k, px, py]);
    }
    c.globalAlpha = 0.75;
    for (const [, px, py] of at) triangle(c, px, py, at.length > 80 ? 4 : 5.5);
    c.globalAlpha = 1;
    if (at.length > 70) return;
    const taken = at.map(([, px, py]) => [px - 6, py - 6, px + 6, py + 6]);
    c.fillStyle = colours.ink;
    c.textAlign = "left";
    c.textBaseline = "middle";
    for (const [k, px, py] of at) {
      const text = code(SITES.id[k]), w = c.measureText(text).width;
      for (const [x, y] of [[px + 8, py], [px - 8 - w, py], [px - w / 2, py - 12], [px - w / 2, py + 12]]) {
        const box = [x, y - 6, x + w, y + 6];
        if (x < left + 2 || x + w > left + wide - 2 || taken.some((o) => box[0] < o[2] && o[0] < box[2] && box[1] < o[3] && o[1] < box[3])) continue;
        taken.push(box);
        c.fillText(text, x, y);
        break;
      }
    }
  }

  // 68 % of the chosen event's epicentre.
  ellipse(c) {
    const i = choice.selected;
    if (i < 0 || !Number.isFinite(CXX[i])) return;
    const half = (CXX[i] + CYY[i]) / 2, root = Math.hypot((CXX[i] - CYY[i]) / 2, CXY[i]), k = Math.sqrt(2.279 * 1);
    const scale = this.inner.wide / (this.now.x[1] - this.now.x[0]);
    c.beginPath();
    c.ellipse(this.px(X[i]), this.py(-Y[i]), k * Math.sqrt(half + root) * scale, k * Math.sqrt(Math.max(half - root, 0)) * scale, -0.5 * Math.atan2(2 * CXY[i], CXX[i] - CYY[i]), 0, 7);
    c.strokeStyle = colours.orange;
    c.lineWidth = 2;
    c.stroke();
  }

  scale(c) {
    const { left, top, wide, high } = this.inner, perPx = (this.now.x[1] - this.now.x[0]) / wide;
    const km = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500].filter((v) => v / perPx < wide * 0.3).pop() || 0.1;
    const [x, y] = [left + 12, top + high - 14];
    c.fillStyle = colours.paper;
    c.globalAlpha = 0.8;
    c.fillRect(x - 6, y - 14, km / perPx + 60, 22);
    c.globalAlpha = 1;
    c.fillStyle = colours.ink;
    c.fillRect(x, y - 2, km / perPx, 3);
    c.textAlign = "left";
    c.textBaseline = "middle";
    c.fillText(`${km} km`, x + km / perPx + 6, y);
  }
}

class Section extends EventView {
  angle() { return turn.degrees + this.quarter; }
  where(i) { return [along(this.angle(), X[i], Y[i]), DEPTH[i]]; }
  wanted(i) { return inBox(i); }

  refit() {
    const s = [], z = [];
    for (let i = 0; i < N; i++) if (shown[i] && inBox(i)) { s.push(along(this.angle(), X[i], Y[i])); z.push(DEPTH[i]); }
    const [top, bottom] = bounds([0, ...z], 0, 5);
    this.setFull(bounds(s, 0.04, 4), [Math.min(top, 0) - 0.06 * (bottom - top), Math.max(bottom, top + 5) + 0.06 * (bottom - top)]);
  }

  paint(c) {
    this.place();
    const { x, y } = this.now, { left, top, wide, high } = this.inner;
    const tx = nice(x[0], x[1], this.width / 75), ty = nice(y[0], y[1], this.tall / 40);
    this.axis(c, "x", tx.ticks.map((v) => [v, v.toFixed(tx.digits).replace("-", "−")]));
    this.axis(c, "y", ty.ticks.map((v) => [v, v.toFixed(ty.digits).replace("-", "−")]));
    this.inside(c, () => { this.bars(c); this.events(c); });
    this.frame(c);
    const steep = (high / (y[1] - y[0])) / (wide / (x[1] - x[0])), name = this.quarter ? "B" : "A";
    c.fillStyle = colours.soft;
    c.font = "bold 12px system-ui, sans-serif";
    c.textBaseline = "top";
    c.textAlign = "left";
    c.fillText(name, left + 6, top + 5);
    c.textAlign = "right";
    c.fillText(`${name}′`, left + wide - 6, top + 5);
    c.font = "11px system-ui, sans-serif";
    c.textBaseline = "bottom";
    const text = `km, vertical × ${number(steep, steep < 10 ? 1 : 0)}`, w = c.measureText(text).width;
    c.fillStyle = colours.paper;
    c.fillRect(left + wide - w - 9, top + high - 18, w + 6, 15);
    c.fillStyle = colours.soft;
    c.fillText(text, left + wide - 6, top + high - 4);
  }

  // One standard deviation of the depth, and of the place along the section.
  bars(c) {
    c.strokeStyle = colours.soft;
    c.lineWidth = 1;
    c.globalAlpha = this.n > 800 ? 0.25 : 0.55;
    const [u, v] = [Math.sin(this.angle() * RADIANS), Math.cos(this.angle() * RADIANS)];
    c.beginPath();
    for (let i = 0; i < N; i++) {
      if (this.sx[i] !== this.sx[i] || !Number.isFinite(ERZ[i])) continue;
      c.moveTo(this.sx[i], this.py(DEPTH[i] - ERZ[i]));
      c.lineTo(this.sx[i], this.py(DEPTH[i] + ERZ[i]));
      const across = Math.sqrt(u * u * CXX[i] + 2 * u * v * CXY[i] + v * v * CYY[i]);
      if (!Number.isFinite(across)) continue;
      const s = along(this.angle(), X[i], Y[i]);
      c.moveTo(this.px(s - across), this.sy[i]);
      c.lineTo(this.px(s + across), this.sy[i]);
    }
    c.stroke();
    c.globalAlpha = 1;
  }
}

const MINUTE = 60000;
const STEPS = [1 / 60, 1 / 12, 1 / 4, 1, 2, 5, 10, 20, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080, 43200, 525600].map((m) => m * MINUTE);
const TIMES = [1000, 5000, 15000, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 30 * MINUTE, 3600000, 7200000, 10800000, 21600000, 43200000, 86400000, 172800000, 432000000];
// The first of a month, of every so many; twice a month where there is room.
const months = (low, high, most) => {
  const begin = new Date(RUN.t0 + low), [year, ticks] = [begin.getUTCFullYear(), []];
  const n = (high - low) / 2629800000, every = [0.5, 1, 3, 6, 12, 24, 60].find((m) => n / m <= most) || 120;
  for (let m = 0; ; m += Math.max(1, every)) {
    for (const day of every < 1 ? [1, 15] : [1]) {
      const t = Date.UTC(year, m, day) - RUN.t0;
      if (t > high) return ticks;
      const text = instant(t, 0);
      if (t >= low) ticks.push([t, every < 12 ? text.slice(5, 10) : text.slice(0, 4)]);
    }
  }
};
const timeTicks = (low, high, most) => {
  const step = TIMES.find((t) => (high - low) / t <= most), ticks = [];
  if (!step) return months(low, high, most);
  for (let k = Math.ceil((low + RUN.t0) / step); k * step <= high + RUN.t0; k++) {
    const t = k * step - RUN.t0, text = instant(t, 0);
    ticks.push([t, step >= 86400000 ? text.slice(5, 10) : step >= MINUTE ? (text.endsWith("00:00:00") ? text.slice(5, 10) : text.slice(11, 16)) : text.slice(11)]);
  }
  return ticks;
};

class Clock extends EventView {
  constructor(id, options) {
    super(id, options);
    const known = MAG.filter(Number.isFinite);
    this.sized = known.length > 0;
    const [low, high] = this.sized ? [Math.floor(Math.min(...bounds(known, 0, 0))), Math.ceil(Math.max(...bounds(known, 0, 0)) + 0.4)] : [0, 1];
    this.low = low;
    this.high = Math.max(high, low + 1);
    this.lane = N > known.length && this.sized ? (this.high - low) * 0.28 : 0; // for what has no magnitude
    const ends = bounds([0, RUN.ms, ...TIME], 0.002, 1000);
    this.first = bounds([0, ...TIME], 0, 0)[0];
    // Upwards: the magnitudes; above them, in as much room, the numbers.
    this.setFull(ends, [-(this.high + (this.high - low) * 0.9), -(low - this.lane)]);
  }

  where(i) { return [TIME[i], -(Number.isFinite(MAG[i]) ? MAG[i] : this.low - this.lane * 0.62)]; }

  changed() {
    choice.span = this.auto ? null : [...this.now.x];
    soon("filter");
  }

  paint(c) {
    this.place();
    const { x } = this.now, { left, top, wide, high } = this.inner;
    this.axis(c, "x", timeTicks(x[0], x[1], this.width / 80));
    const t = nice(this.low, this.high, 3);
    if (this.sized) this.axis(c, "y", t.ticks.filter((v) => v <= this.high).map((v) => [-v, `M ${v.toFixed(t.digits)}`]));
    const base = this.sized ? this.py(-this.high) - 6 : top + high;
    this.inside(c, () => { this.bins(c, base); if (this.sized) this.events(c); });
    if (this.lane) {
      c.fillStyle = colours.soft;
      c.textAlign = "right";
      c.textBaseline = "middle";
      c.fillText("no M", left - 5, this.py(-(this.low - this.lane * 0.62)));
    }
    this.frame(c);
    c.fillStyle = colours.soft;
    c.textAlign = "left";
    c.textBaseline = "top";
    c.fillText(instant(Math.max(x[0], this.first), 0).slice(0, 10), left + 6, top + 4);
  }

  bins(c, base) {
    const { x } = this.now, { left, top, wide } = this.inner;
    const step = STEPS.find((s) => (x[1] - x[0]) / s <= Math.min(120, wide / 5)) || STEPS[STEPS.length - 1];
    const first = Math.floor((x[0] + RUN.t0) / step), n = Math.floor((x[1] + RUN.t0) / step) - first + 1;
    const names = Object.keys(LOOK), counts = names.map(() => new Uint32Array(n)), all = new Uint32Array(n);
    for (let i = 0; i < N; i++) {
      const k = Math.floor((TIME[i] + RUN.t0) / step) - first;
      if (!shown[i] || !(k >= 0 && k < n)) continue;
      counts[names.indexOf(status(i))][k]++;
      all[k]++;
    }
    const most = Math.max(1, ...all), unit = (base - top - 20) / most;
    for (let k = 0; k < n; k++) {
      let y = base;
      const [from, to] = [this.px((first + k) * step - RUN.t0), this.px((first + k + 1) * step - RUN.t0)];
      names.forEach((name, j) => {
        const h = counts[j][k] * unit;
        c.fillStyle = colours[LOOK[name]];
        if (h) c.fillRect(from + 0.5, y - h, Math.max(1, to - from - 1), h);
        y -= h;
      });
    }
    c.fillStyle = colours.soft;
    c.textAlign = "right";
    c.textBaseline = "top";
    const long = step >= 86400000 ? plural(step / 86400000, "day") : step >= 3600000 ? plural(step / 3600000, "hour") : step >= MINUTE ? plural(step / MINUTE, "minute") : plural(step / 1000, "second");
    c.fillText(`at most ${most.toLocaleString("en-US")} in ${long}`, left + wide - 6, top + 4);
  }
}
