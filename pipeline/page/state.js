// What the page knows (columns of numbers, one row an event) and what is chosen.
const DATA = JSON.parse(document.getElementById("data").textContent);
const E = DATA.events, N = E.t.length, RUN = DATA.run, SITES = DATA.sites;
const nan = (column) => Float64Array.from(column || new Array(N).fill(null), (v) => (v === null ? NaN : v));
const [LAT, LON, DEPTH, MAG, TIME] = [E.lat, E.lon, E.z, E.m, E.t].map(nan);
const [ERH, ERZ, CXX, CXY, CYY] = [E.erh, E.erz, E.cxx, E.cxy, E.cyy].map(nan);
const named = (codes) => (codes ? (i) => codes.names[codes.at[i]] : () => "");
const status = named(E.status), kind = named(E.kind), why = named(E.why), said = named(E.said), repeats = named(E.dup), flag = named(E.flag);
const fixed = named(E.fixed);
const anchor = (i) => (E.ours[i] ? "event=" + encodeURIComponent(E.ours[i]) : "reference=" + encodeURIComponent(E.theirs[i]));

// Numbers and times as the rest of the page writes them.
const LACK = "–";
const number = (value, digits = 2, sign = false) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return LACK;
  const text = Math.abs(value).toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const zero = !/[1-9]/.test(text);
  return (zero ? "" : value < 0 ? "−" : sign ? "+" : "") + text;
};
const chance = (p) => (p === null || p === undefined || !Number.isFinite(p) ? LACK : p > 0.99 ? ">99" : p < 0.01 ? "<1" : number(100 * p, 0));
const instant = (ms, digits = 2) => {
  if (!Number.isFinite(ms)) return LACK;
  const step = 10 ** (3 - digits), text = new Date(Math.floor((RUN.t0 + ms + step / 2) / step) * step).toISOString();
  return text.slice(0, digits ? 20 + digits : 19).replace("T", " ");
};
const clock = (ms, digits = 2) => instant(ms, digits).slice(11);
const plural = (n, noun) => `${n.toLocaleString("en-US")} ${noun}${n === 1 ? "" : "s"}`;

// A plane that is true at the middle of what there is: km to the east and to the north.
const RADIANS = Math.PI / 180;
const kmPerDegree = (latitude) => {
  const s = Math.sin(latitude * RADIANS), w = 1 - 0.00669438 * s * s;
  return [(6378.137 / Math.sqrt(w)) * Math.cos(latitude * RADIANS) * RADIANS, ((6378.137 * 0.99330562) / w ** 1.5) * RADIANS];
};
const median = (values) => {
  const sorted = Float64Array.from(values).filter(Number.isFinite).sort();
  return sorted.length ? sorted[sorted.length >> 1] : 0;
};
const MID = N ? [median(LAT), median(LON)] : [median(SITES.lat), median(SITES.lon)];
const [KMX, KMY] = kmPerDegree(MID[0]);
const east = (lon) => (lon - MID[1]) * KMX, north = (lat) => (lat - MID[0]) * KMY;
const X = LON.map(east), Y = LAT.map(north);
const distance = (lat1, lon1, lat2, lon2) => {
  const [kx, ky] = kmPerDegree((lat1 + lat2) / 2);
  return Math.hypot((lon2 - lon1) * kx, (lat2 - lat1) * ky);
};
const siteAt = new Map(SITES.id.map((id, k) => [id, k]));
const site = (channel) => channel.split(".").slice(0, 2).join(".");
const code = (name) => name.split(".")[1] || name;

// The choice: which events are shown in all views (in time, by status and size), and which one is looked at.
const choice = { status: "all", least: -Infinity, span: null, box: null, find: "", selected: -1 };
const shown = new Uint8Array(N);
const listeners = [];
const isShown = (i) =>
  (choice.status === "all" || status(i) === choice.status) &&
  !(MAG[i] < choice.least || (choice.least > -Infinity && !Number.isFinite(MAG[i]))) &&
  (!choice.span || (TIME[i] >= choice.span[0] && TIME[i] <= choice.span[1]));
const inBox = (i) => !choice.box || (X[i] >= choice.box[0] && X[i] <= choice.box[1] && Y[i] >= choice.box[2] && Y[i] <= choice.box[3]);
const update = (what) => {
  if (what === "filter") for (let i = 0; i < N; i++) shown[i] = isShown(i) ? 1 : 0;
  for (const listener of listeners) listener(what);
};
const pending = new Set();
const soon = (what) => {
  if (!pending.size) requestAnimationFrame(() => { const all = [...pending]; pending.clear(); update(all.includes("filter") ? "filter" : all[0]); });
  pending.add(what);
};

// Elements without markup: text stays text.
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};
const byId = (id) => document.getElementById(id);

// Colours of the page, dark or light; of paper while it is printed.
const PAPER = { paper: "#ffffff", ink: "#1d2329", soft: "#5b6671", line: "#dde2e7", wash: "#f5f7f9", blue: "#0072b2", orange: "#e69f00", green: "#009e73", red: "#d55e00", grey: "#8c8c8c", amber: "#b27300" };
let colours = PAPER;
const readColours = () => {
  const style = getComputedStyle(document.documentElement);
  colours = Object.fromEntries(Object.keys(PAPER).map((name) => [name, style.getPropertyValue("--" + name).trim() || PAPER[name]]));
};
readColours();
const LOOK = { matched: "blue", found: "blue", new: "green", missed: "red", "not scored": "grey" };
