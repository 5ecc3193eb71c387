// One event: what is known of it, its records with picks and predicted times, and its picks as a table.
const PHASE = ["P", "S"], FATE = ["", "same", "other", "noise", "missed", "elsewhere"];
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const picksOf = (i) => (DATA.picks[i] || []).map(([ch, ph, ours, theirs, predicted, fate, theirPhase, share, residual]) => (
  { station: DATA.channels[ch], phase: PHASE[ph], ours, theirs, predicted, fate: FATE[fate], theirPhase: PHASE[theirPhase], share, residual }));

// One row a site, the nearest first: its record, its picks, and when P and S are predicted.
const rowsOf = (i) => {
  const rows = new Map();
  const row = (channel) => {
    const name = site(channel), k = siteAt.get(name);
    if (!rows.has(name)) rows.set(name, { name, channel, picks: [], others: [], km: k === undefined ? NaN : distance(LAT[i], LON[i], SITES.lat[k], SITES.lon[k]), p: null, s: null, trace: null });
    return rows.get(name);
  };
  for (const [ch, start, rate, peakZ, peakH, z, h] of DATA.sections[i] || []) row(DATA.channels[ch]).trace = { start: start / 1000, rate, peak: [peakZ, peakH], text: [z, h], samples: [null, null] };
  for (const [ch, p, s] of DATA.predicted[i] || []) Object.assign(row(DATA.channels[ch]), { p: p / 1000, s: s / 1000 });
  for (const [ch, ph, t, elsewhere, share] of DATA.others[i] || []) row(DATA.channels[ch]).others.push({ phase: PHASE[ph], t: t / 1000, elsewhere, share });
  for (const pick of picksOf(i)) {
    const one = row(pick.station), key = pick.phase.toLowerCase();
    one.picks.push(pick);
    if (one[key] === null && pick.predicted !== null) one[key] = pick.predicted / 1000;
  }
  return [...rows.values()].sort((a, b) => (Number.isFinite(a.km) ? a.km : 1e9) - (Number.isFinite(b.km) ? b.km : 1e9) || (a.name < b.name ? -1 : 1));
};

const MOST_ROWS = 40;
const strange = (pick) => pick.fate === "noise" || pick.fate === "elsewhere"; // our pick is not of this event
class Records extends View {
  constructor(id, options) {
    super(id, { y: false, most: 400, ...options });
    const times = [];
    for (const { picks, p, s, trace } of this.rows) {
      for (const pick of picks) for (const t of [pick.ours, pick.theirs]) if (t !== null) times.push(t / 1000);
      for (const t of [p, s]) if (t !== null) times.push(t);
      if (trace) times.push(trace.start, trace.start + Math.max(trace.text[0].length, trace.text[1].length) * 0.75 / trace.rate);
    }
    this.component = 0;
    this.setFull(bounds(times, 0.02, 4), [0, this.rows.length]);
    this.resize();
  }

  paint(c) {
    const { x } = this.now, { left, top, wide, high } = this.inner, row = high / this.rows.length;
    const t = nice(x[0], x[1], this.width / 80);
    let [drawn, marks] = [0, 0];
    this.axis(c, "x", t.ticks.map((v) => [v, `${v.toFixed(t.digits).replace("-", "−")} s`]));
    this.spots = [];
    this.rows.forEach((one, k) => {
      const y = top + (k + 0.5) * row;
      c.strokeStyle = colours.line;
      c.lineWidth = 1;
      c.beginPath();
      c.moveTo(left, Math.round(top + (k + 1) * row) + 0.5);
      c.lineTo(left + wide, Math.round(top + (k + 1) * row) + 0.5);
      c.stroke();
      this.naming(c, one, y, row);
    });
    this.inside(c, () => this.rows.forEach((one, k) => {
      const y = top + (k + 0.5) * row;
      drawn += this.trace(c, one.trace, y, row * 0.44);
      marks += this.picks(c, one, y, row);
    }));
    this.frame(c);
    Object.assign(this.canvas.dataset, { rows: this.rows.length, points: drawn, marks });
  }

  naming(c, one, y, row) {
    const far = Number.isFinite(one.km) ? `${number(one.km, one.km < 10 ? 1 : 0)} km` : LACK, x = this.margins[0] - 6;
    c.textAlign = "right";
    c.textBaseline = "middle";
    c.fillStyle = colours.ink;
    if (row >= 26) {
      c.fillText(code(one.name), x, y - 6);
      c.fillStyle = colours.soft;
      c.fillText(far, x, y + 7);
    } else c.fillText(`${code(one.name)} ${far}`, x, y);
  }

  trace(c, trace, y, half) {
    if (!trace || !trace.text[this.component]) return 0;
    const values = trace.samples[this.component] || (trace.samples[this.component] = bytes(trace.text[this.component]));
    c.strokeStyle = colours.ink;
    c.globalAlpha = 0.8;
    c.lineWidth = 0.9;
    c.beginPath();
    let down = false;
    for (let k = 0; k < values.length; k++) {
      if (!values[k]) { down = false; continue; }
      const px = this.px(trace.start + k / trace.rate), py = y - ((values[k] - 128) / 127) * half;
      if (down) c.lineTo(px, py);
      else c.moveTo(px, py);
      down = true;
    }
    c.stroke();
    c.globalAlpha = 1;
    return values.length;
  }

  // Ours from above, the analysts' from below, predicted ones dotted all through.
  picks(c, one, y, row) {
    let n = 0;
    const [above, below] = [y - row * 0.46, y + row * 0.46];
    for (const [phase, t] of [["P", one.p], ["S", one.s]]) {
      if (t === null) continue;
      const x = this.px(t);
      c.strokeStyle = colours[phase === "P" ? "blue" : "amber"];
      c.lineWidth = 1.2;
      c.setLineDash([2, 3]);
      c.beginPath();
      c.moveTo(x, above);
      c.lineTo(x, below);
      c.stroke();
      c.setLineDash([]);
      this.spots.push([x, y, row, `${one.name} · predicted ${phase} ${number(t, 2)} s`]);
    }
    for (const { phase, t, elsewhere, share } of one.others) {
      const x = this.px(t);
      c.strokeStyle = colours.soft;
      c.lineWidth = 1.2;
      c.beginPath();
      c.moveTo(x, above);
      c.lineTo(x, y - row * 0.2);
      c.stroke();
      c.fillStyle = colours.soft;
      c.textAlign = "center";
      c.textBaseline = "top";
      c.fillText(phase, x, y - row * 0.2);
      this.spots.push([x, y - row / 4, row / 2, `${one.name} · our ${phase}, ${number(t, 2)} s, ${elsewhere ? "in another event" : "in no event"}\nthe picker's probability ${share} %`]);
    }
    for (const pick of one.picks) {
      for (const [t, phase, mine] of [[pick.ours, pick.phase, true], [pick.theirs, pick.theirPhase, false]]) {
        if (t === null || (mine && strange(pick))) continue;
        const x = this.px(t / 1000), colour = colours[phase === "P" ? "blue" : "amber"], [from, to, k] = mine ? [above, y, 1] : [below, y, -1];
        n++;
        c.strokeStyle = colour;
        c.lineWidth = 2;
        c.beginPath();
        c.moveTo(x, from);
        c.lineTo(x, to);
        c.stroke();
        c.beginPath();
        c.moveTo(x - 4.5, from);
        c.lineTo(x + 4.5, from);
        c.lineTo(x, from + 6 * k);
        c.closePath();
        c.fillStyle = mine ? colour : colours.paper;
        c.fill();
        c.lineWidth = 1.3;
        c.stroke();
        c.fillStyle = colour;
        c.textAlign = "left";
        c.textBaseline = "middle";
        if (row >= 26) c.fillText(phase, x + 6, from + 5 * k);
        this.spots.push([x, mine ? y - row / 4 : y + row / 4, row / 2, tellPick(one, pick, mine)]);
      }
    }
    return n;
  }

  tip([x, y]) {
    let [best, least] = ["", 9];
    for (const [px, py, high, text] of this.spots || []) {
      const d = Math.abs(px - x) + (Math.abs(py - y) > high / 2 ? 99 : 0);
      if (d < least) [best, least] = [text, d];
    }
    return best;
  }
}

const tellPick = (one, pick, mine) => {
  const t = mine ? pick.ours : pick.theirs, phase = mine ? pick.phase : pick.theirPhase;
  const more = mine ? [pick.share === null ? "" : `belongs to the event: ${pick.share} %`, pick.residual === null ? "" : `residual ${number(pick.residual / 1000, 2, true)} s`] : [analyst(pick)];
  return [`${one.name} · ${mine ? "our" : "the analyst's"} ${phase}, ${number(t / 1000, 2)} s after the origin`, ...more].filter(Boolean).join("\n");
};

const compared = Object.values(DATA.picks).some((rows) => rows.some((row) => row[5]));
const analyst = (pick) => {
  const difference = pick.ours === null || pick.theirs === null ? "" : `${number((pick.ours - pick.theirs) / 1000, 2, true)} s${pick.phase === pick.theirPhase ? "" : `, there ${pick.theirPhase}`}`;
  if (!pick.fate) return compared ? "not picked" : "";
  if (pick.fate === "missed") return "not picked by us";
  if (pick.fate === "noise") return `picked by us ${difference}, in noise`;
  return pick.fate === "elsewhere" ? `picked by us ${difference}, in another event` : pick.fate === "other" ? `${difference}, there in another event` : difference;
};

const pickTable = (i) => {
  const head = ["station", "phase", "arrival", "distance (km)", "predicted", "residual (s)", "in the event (%)", compared ? "analyst, ours − theirs" : ""];
  const rows = rowsOf(i).flatMap((one) => one.picks.map((pick) => {
    const t = pick.ours !== null && !strange(pick) ? pick.ours : pick.theirs;
    const cells = [pick.station, pick.phase, clock(TIME[i] + t), number(one.km, 1), pick.predicted === null ? LACK : clock(TIME[i] + pick.predicted), number(pick.residual === null ? null : pick.residual / 1000, 2, true), pick.share === null ? LACK : String(pick.share), analyst(pick)];
    return [t, make("tr", {}, ...cells.map((text, k) => make("td", { class: k < 2 || k === 7 ? "l" : null }, text)))];
  }));
  rows.sort((a, b) => a[0] - b[0]);
  return make("div", { class: "scroll" }, make("table", { class: "rows picks" }, make("thead", {}, make("tr", {}, ...head.map((text, k) => make("th", { class: k < 2 || k === 7 ? "l" : null }, text)))), make("tbody", {}, ...rows.map(([, row]) => row))));
};

const factsOf = (i) => {
  const facts = [["magnitude", Number.isFinite(MAG[i]) ? number(MAG[i], 1) + (E.msig && E.msig[i] !== null ? ` ± ${number(E.msig[i], 1)}` : "") : "not known"],
    ["place", `${number(Math.abs(LAT[i]), 3)}° ${LAT[i] < 0 ? "S" : "N"}, ${number(Math.abs(LON[i]), 3)}° ${LON[i] < 0 ? "W" : "E"}` + (Number.isFinite(ERH[i]) ? ` ± ${number(ERH[i], 1)} km` : "")],
    ["depth", Number.isFinite(DEPTH[i]) ? `${number(DEPTH[i], 1)} km${Number.isFinite(ERZ[i]) ? ` ± ${number(ERZ[i], 1)} km` : ""}${fixed(i) && ", " + fixed(i)}` : "not known"]];
  if (E.ours[i]) facts.push(["our picks", `${E.np[i]} P, ${E.ns[i]} S; gap ${number(E.gap && E.gap[i], 0)}°, nearest ${number(E.near && E.near[i], 1)} km, RMS ${number(E.rms && E.rms[i], 2)} s`]);
  if (E.p && E.p[i] !== null) facts.push(["real", `${chance(E.p[i])} %`]);
  if (status(i) === "matched") facts.push(["ours − theirs", `${number(E.dt && E.dt[i], 2, true)} s, ${number(E.dx && E.dx[i], 1)} km, depth ${number(E.dz && E.dz[i], 1, true)} km`]);
  if (why(i)) facts.push(["why missed", why(i) + (DATA.because[i] ? `: ${DATA.because[i]}` : "")]);
  if (said(i)) facts.push(["decision", said(i)]);
  if (flag(i)) facts.push(["flag", flag(i) + (repeats(i) ? ` (${repeats(i)})` : "") + (E.blast && E.blast[i] > 0 ? ` (blast score ${number(E.blast[i], 2)} of 1)` : "")]);
  if (kind(i) && kind(i) !== "earthquake") facts.push(["kind", kind(i)]);
  facts.push(["ids", [E.ours[i] && `ours ${E.ours[i]}`, E.theirs[i] && `reference ${E.theirs[i]}`].filter(Boolean).join(", ")]);
  return make("dl", { class: "facts" }, ...facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
};

let records = null;
const showEvent = (i) => {
  const title = byId("event-title"), body = byId("event-body");
  title.replaceChildren(`Event of ${instant(TIME[i], 2)} `, make("span", { class: `s ${status(i)}` }, status(i)));
  const rows = rowsOf(i), cut = rows.slice(0, MOST_ROWS), withTrace = cut.some((row) => row.trace);
  const step = (by, text, label) => make("button", { type: "button", class: "plain", "aria-label": label, on: { click: () => neighbour(by) } }, text);
  const tools = make("div", { class: "tools" }, step(-1, "◀ before", "event before"), step(1, "after ▶", "event after"));
  if (withTrace) {
    const pick = (k, text) => make("label", {}, make("input", { type: "radio", name: "component", value: k, checked: k === 0, on: { change: () => { records.component = k; records.dirty(); } } }), ` ${text}`);
    tools.append(make("span", { role: "radiogroup", "aria-label": "component" }, pick(0, "vertical"), " ", pick(1, "horizontal")));
  }
  const parts = [tools, factsOf(i)];
  if (cut.length) {
    const note = [withTrace ? "Records from 1 to 9 Hz, each to its own largest amplitude." : "There are no records of this event in the page.", "Seconds after the origin time.", cut.length < rows.length ? `The nearest ${cut.length} of ${rows.length} stations.` : ""];
    parts.push(make("figure", { class: "view", id: "records" }), make("p", { class: "note" }, make("span", { class: "pick ours" }, "ours"), " ", make("span", { class: "pick theirs" }, "the analysts’"), " ", make("span", { class: "pick told" }, "predicted"), " ", make("span", { class: "pick other" }, "ours, not in this event"), " ", make("span", { class: "pick p" }, "P"), " ", make("span", { class: "pick s2" }, "S"), ` · ${note.filter(Boolean).join(" ")}`));
  } else parts.push(make("p", { class: "note" }, DATA.picks[i] ? "It has no picks." : "Its picks are not in this page, which holds those of the most urgent events; catalogue/ and compare/ have all."));
  const n = (DATA.picks[i] || []).length;
  if (n) parts.push(make("details", { open: innerWidth > 700 && n <= 60 }, make("summary", {}, plural(n, "pick")), pickTable(i)));
  if (records) views.splice(views.indexOf(records), 1);
  body.replaceChildren(...parts);
  records = null;
  if (cut.length) {
    const label = `Record section: ${plural(cut.length, "station")} with ${plural(n, "pick")}; the table below has the picks`;
    const narrow = innerWidth < 600;
    records = new Records("records", { label, rows: cut, margins: [narrow ? 58 : 74, 8, 10, 22], height: () => 34 + cut.length * (withTrace ? (narrow ? 34 : 40) : 28) });
  }
};
