// The list of events, what is chosen of them, and the address of an event in the page.
const columns = (() => {
  const place = (text, k) => number(text, k), has = (column) => E[column] !== undefined, ours = (i) => E.ours[i] !== "";
  const of = (column) => (i) => (has(column) && E[column][i] !== null ? E[column][i] : NaN);
  const all = [
    { name: "origin time", left: true, value: (i) => TIME[i], text: (i) => instant(TIME[i], 2), link: true },
    { name: "lat", unit: "°", value: (i) => LAT[i], text: (i) => place(LAT[i], 3) },
    { name: "lon", unit: "°", value: (i) => LON[i], text: (i) => place(LON[i], 3) },
    { name: "depth", unit: "km", value: (i) => DEPTH[i], text: (i) => place(DEPTH[i], 1) + (Number.isFinite(ERZ[i]) ? ` ± ${number(ERZ[i], 1)}` : "") + (fixed(i) && " fixed") },
    { name: "M", value: (i) => MAG[i], text: (i) => number(MAG[i], 1) },
    { name: "P", value: (i) => (ours(i) ? E.np[i] : NaN), text: (i) => (ours(i) ? String(E.np[i]) : LACK) },
    { name: "S", value: (i) => (ours(i) ? E.ns[i] : NaN), text: (i) => (ours(i) ? String(E.ns[i]) : LACK) },
    { name: "gap", unit: "°", value: of("gap"), text: (i) => number(of("gap")(i), 0) },
    { name: "nearest", unit: "km", value: of("near"), text: (i) => number(of("near")(i), 1) },
    { name: E.erz ? "RMS" : "σ", unit: "s", value: of("rms"), text: (i) => number(of("rms")(i), 2) },
  ];
  if (has("p")) all.push({ name: "real", unit: "%", value: of("p"), text: (i) => chance(of("p")(i)) });
  if (E.status && !E.status.names.includes("found")) all.push(
    { name: "status", left: true, value: status, text: status, mark: true },
    { name: "Δt", unit: "s", value: of("dt"), text: (i) => number(of("dt")(i), 2, true) },
    { name: "Δx", unit: "km", value: of("dx"), text: (i) => number(of("dx")(i), 1) },
    { name: "Δz", unit: "km", value: of("dz"), text: (i) => number(of("dz")(i), 1, true) });
  if (E.kind && E.kind.names.some((name) => name && name !== "earthquake")) all.push({ name: "kind", left: true, value: kind, text: (i) => kind(i) || LACK });
  if (E.why) all.push({ name: "reason", left: true, value: why, text: why });
  if (E.flag) all.push({ name: "flag", left: true, value: flag, text: flag });
  return all;
})();

const PAGE = 100;
const list = {
  table: byId("list"), column: 0, up: true, rows: [], most: PAGE,

  head() {
    const cells = columns.map((column, k) => {
      const button = make("button", { type: "button", on: { click: () => this.sort(k) } }, column.name, column.unit ? make("small", {}, column.unit) : null);
      return make("th", { class: column.left ? "l" : null, scope: "col" }, button);
    });
    this.table.tHead.replaceChildren(make("tr", {}, ...cells));
  },

  sort(k) {
    this.up = this.column === k ? !this.up : true;
    this.column = k;
    this.find();
  },

  // The events that all filters leave, in the order of a column; what is not known comes last.
  find() {
    const words = choice.find.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (i) => words.every((word) => [instant(TIME[i], 2), E.ours[i], E.theirs[i], status(i), kind(i), why(i), said(i), flag(i)].some((text) => text.toLowerCase().includes(word)));
    const { value } = columns[this.column], sign = this.up ? 1 : -1;
    const lacks = (v) => v === "" || (typeof v === "number" && !Number.isFinite(v));
    this.rows = [];
    for (let i = 0; i < N; i++) if (shown[i] && inBox(i) && (!words.length || fits(i))) this.rows.push(i);
    const keys = new Map(this.rows.map((i) => [i, value(i)]));
    this.rows.sort((a, b) => {
      const [va, vb] = [keys.get(a), keys.get(b)];
      return lacks(va) - lacks(vb) || (lacks(va) ? 0 : sign * (typeof va === "number" ? va - vb : va.localeCompare(vb))) || a - b;
    });
    [...this.table.tHead.rows[0].cells].forEach((cell, k) => cell.setAttribute("aria-sort", k === this.column ? (this.up ? "ascending" : "descending") : "none"));
    this.most = PAGE;
    this.draw();
  },

  draw() {
    const rows = this.rows.slice(0, this.most).map((i) => this.row(i));
    this.table.tBodies[0].replaceChildren(...rows);
    byId("more").hidden = this.rows.length <= this.most;
    byId("more").textContent = `${Math.min(PAGE, this.rows.length - this.most).toLocaleString("en-US")} more rows of ${(this.rows.length - this.most).toLocaleString("en-US")}`;
    byId("listed").textContent = `${plural(this.rows.length, "event")}${this.rows.length < RUN.n ? ` of ${RUN.n.toLocaleString("en-US")}` : ""}${N < RUN.n ? `; the page holds ${N.toLocaleString("en-US")}, missed and new ones first` : ""}`;
  },

  row(i) {
    const cells = columns.map((column) => {
      const text = column.text(i);
      const inner = column.link ? make("a", { href: `#${anchor(i)}` }, text) : column.mark ? make("span", { class: `s ${text}` }, text) : text;
      return make("td", { class: column.left ? "l" : null }, inner);
    });
    return make("tr", { class: i === choice.selected ? "event chosen" : "event", "data-event": i, "aria-current": i === choice.selected ? "true" : null }, ...cells);
  },
};

// The one event that is looked at.
const choose = (i, { show = false, address = true } = {}) => {
  choice.selected = i;
  if (address) history.replaceState(null, "", `#${anchor(i)}`);
  showEvent(i);
  for (const view of views) if (view instanceof EventView) view.dirty();
  if (byId("list")) for (const row of list.table.tBodies[0].rows) row.classList.toggle("chosen", Number(row.dataset.event) === i);
  if (show) reveal(byId("event"));
};
const still = matchMedia("(prefers-reduced-motion: reduce)");
const reveal = (element) => {
  const { top } = element.getBoundingClientRect();
  if (top < 40 || top > innerHeight * 0.6) element.scrollIntoView({ block: "start", behavior: still.matches || !document.documentElement.dataset.ready ? "instant" : "smooth" });
};
const neighbour = (by) => {
  let i = choice.selected;
  do i += by; while (i >= 0 && i < N && !(shown[i] && inBox(i)));
  if (i >= 0 && i < N) choose(i);
};
const fromAddress = (address = location.hash) => {
  const found = /^#(event|reference)=(.*)$/.exec(address);
  if (!found) return -1;
  let name = found[2];
  try { name = decodeURIComponent(name); } catch { /* as it stands */ }
  const at = found[1] === "event" ? E.ours.indexOf(name) : -1;
  return at >= 0 ? at : E.theirs.indexOf(name);
};

if (byId("explorer")) {
  const names = Object.keys(LOOK).filter((name) => E.status && E.status.names.includes(name));
  const counts = Object.fromEntries(names.map((name) => [name, E.status.at.filter((k) => E.status.names[k] === name).length]));
  const press = (name) => {
    choice.status = name;
    for (const button of byId("statuses").children) button.setAttribute("aria-pressed", button.dataset.status === name);
    update("filter");
  };
  const button = (name, ...inner) => make("button", { type: "button", "data-status": name, "aria-pressed": name === choice.status, on: { click: () => press(name) } }, ...inner);
  byId("statuses").append(...(names.length > 1 ? [button("all", "all"), ...names.map((name) => button(name, make("span", { class: `s ${name}` }, `${name} ${counts[name].toLocaleString("en-US")}`)))] : []));

  const tall = (w) => Math.round(Math.min(w * 0.62, 290));
  const sections = [["along", 0], ["across", 90]].map(([id, quarter]) => new Section(id, { quarter, label: quarter ? "Section B to B′" : "Section A to A′", margins: [36, 6, 6, 22], most: 200, height: tall }));
  const time = N ? new Clock("clock", { y: false, label: "Events in time", margins: [50, 6, 6, 22], most: 1e6, height: (w) => (w < 500 ? 210 : 240) }) : null;
  if (!N) for (const id of ["along", "across", "clock"]) byId(id).hidden = true;
  const some = N ? [...X] : SX, others = N ? [...Y] : SY;
  const near = (k) => { const [a, b, c, d] = [...bounds(some, 0.3, 10), ...bounds(others, 0.3, 10)]; return SX[k] > a && SX[k] < b && SY[k] > c && SY[k] < d; };
  const around = SX.map((_, k) => k).filter(near);
  const x = bounds([...some, ...around.map((k) => SX[k])], 0.06, 4), y = bounds([...others, ...around.map((k) => SY[k])], 0.06, 4);
  const shape = Math.min(1.05, Math.max(0.62, (y[1] - y[0]) / (x[1] - x[0])));
  const plan = new Plan("plan", { label: "Map of events and stations", margins: [50, 6, 6, 22], square: true, height: (w) => Math.round(Math.min(660, Math.max(w < 500 ? 0 : 470, w * shape))) });
  plan.setFull(x, [-y[1], -y[0]]);

  const slider = byId("azimuth"), degrees = byId("degrees");
  const rotate = () => {
    turn.degrees = Number(slider.value);
    degrees.textContent = `${slider.value}°`;
    for (const section of sections) section.refit();
    plan.dirty();
  };
  slider.value = turn.degrees;
  slider.addEventListener("input", rotate);

  listeners.push((what) => {
    for (const section of sections) section.refit();
    for (const view of views) if (view instanceof EventView) view.dirty();
    let n = 0;
    for (let i = 0; i < N; i++) n += shown[i] && inBox(i);
    const between = choice.span ? `, ${instant(choice.span[0], 0)} to ${instant(choice.span[1], 0)}` : "";
    byId("told").textContent = `${plural(n, "event")} of ${N.toLocaleString("en-US")}${between}`;
    if (byId("list")) list.find();
  });

  byId("least").addEventListener("input", (e) => { choice.least = e.target.value === "" ? -Infinity : Number(e.target.value); update("filter"); });
  byId("all").addEventListener("click", () => {
    choice.least = -Infinity;
    byId("least").value = "";
    choice.find = "";
    if (byId("find")) byId("find").value = "";
    plan.reset();
    if (time) time.reset();
    press("all");
  });
  if (byId("list")) {
    list.head();
    byId("find").addEventListener("input", (e) => { choice.find = e.target.value; list.find(); });
    byId("more").addEventListener("click", () => { list.most += PAGE; list.draw(); });
    list.table.addEventListener("click", (e) => {
      const row = e.target.closest("tr.event");
      if (row && !e.ctrlKey && !e.metaKey && !e.shiftKey) { e.preventDefault(); choose(Number(row.dataset.event), { show: true }); }
    });
  }
  const sizes = [0, 1, 2, 3, 4, 5, 6, 7].filter((m) => N && MAG.some((v) => v >= m - 0.5 && v < m + 0.5));
  byId("legend").append(
    ...names.map((name) => make("span", { class: `s ${name}` }, `${name} `)), "△ station ",
    N && E.tlat ? "· a line leads from our place to the reference’s " : "", N && E.erz ? "· bars: standard errors; ellipse: 68 % " : "",
    sizes.length ? `· marks grow with magnitude (M ${sizes[0]} to ${sizes[sizes.length - 1]})` : "");

  rotate();
  update("filter");
  const weight = (i) => (DATA.sections[i] ? 2 : 0) + (status(i) === "missed" ? 1 : 0); // the most telling one first
  const first = [...order].sort((a, b) => weight(b) - weight(a))[0];
  const asked = fromAddress();
  if (asked >= 0) choose(asked, { show: true });
  else if (first !== undefined) choose(first, { address: false });
  document.addEventListener("click", (e) => {
    const link = e.target.closest("a[href^='#event='], a[href^='#reference=']"), i = link ? fromAddress(link.getAttribute("href")) : -1;
    if (i >= 0 && !link.closest("#list") && !e.ctrlKey && !e.metaKey && !e.shiftKey) { e.preventDefault(); choose(i, { show: true }); }
  });
  addEventListener("hashchange", () => { const i = fromAddress(); if (i >= 0) choose(i, { show: true, address: false }); });

  const repaint = () => { for (const view of views) view.paintNow(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); repaint(); });
  addEventListener("beforeprint", () => { colours = PAPER; repaint(); for (const part of document.querySelectorAll("details.print")) part.open = true; if (byId("list")) { list.most = Math.max(list.most, 5 * PAGE); list.draw(); } });
  addEventListener("afterprint", () => { readColours(); repaint(); });
  document.documentElement.dataset.ready = "yes";
}
