"use strict";
// What every plot needs: the content, the choice of runs, colours and small helpers. Names are users' text: only ever textContent,
// and escaped for Plotly, which reads a few tags.
const DATA = JSON.parse(document.getElementById("data").textContent);
const chosen = new Set();
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "star", "pentagon", "hexagon"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const COLOURS = 8;
let group = 0;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const places = (number) => DATA.runs.map((_, place) => place).filter((place) => DATA.runs[place].group === number);
const byRank = (some) => [...some].sort((a, b) => DATA.runs[a].rank - DATA.runs[b].rank);
const drawn = () => byRank(places(group).filter((place) => chosen.has(place)));
const hasValue = (value) => value !== null && value !== undefined;
const bare = (metric) => metric.replace(/^test\//, "");
const safe = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const short = (text, most = 28) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
const label = (place, most) => safe(short(DATA.runs[place].label, most));
const rowOf = (metric) => DATA.rows.find((row) => row.metric === metric);
const groupLabel = () => (DATA.groups.length > 1 ? `Group ${DATA.groups[group].letter}. ` : "");

function figure(value, sign = false) {
  if (!hasValue(value)) return "-";
  const size = Math.abs(value);
  const text = value === 0 || (size >= 1e-3 && size < 1e4) ? value.toFixed(4) : value.toExponential(2);
  return sign && value > 0 ? "+" + text : text;
}

// A run keeps its colour and its symbol, whichever others are drawn.
const colour = (place) => css(`--run${DATA.runs[place].rank % COLOURS}`);
const symbol = (place) => SYMBOLS[Math.floor(DATA.runs[place].rank / COLOURS) % SYMBOLS.length];
const dash = (place) => DASHES[Math.floor(DATA.runs[place].rank / COLOURS) % DASHES.length];

function make(tag, options = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...inside);
  return made;
}

function table(head, rows) {
  const cell = (tag, text, place, scope) => {
    const made = make(tag, { text, class: place === 0 ? "text" : "" });
    if (scope) made.setAttribute("scope", scope);
    return made;
  };
  const top = make("tr", {}, ...head.map((text, place) => cell("th", text, place, "col")));
  const body = rows.map((row) => make("tr", {}, ...row.map((text, place) => cell(place ? "td" : "th", text, place, place ? "" : "row"))));
  return make("div", { class: "table", tabindex: "0" }, make("table", {}, make("thead", {}, top), make("tbody", {}, ...body)));
}

function select(title, options, picked, change) {
  const box = make("select", {
    "data-choice": title,
    onchange: () => change(box.value),
  }, ...options.map(([value, text]) => make("option", { value, text })));
  box.value = picked;
  return make("label", {}, title + " ", box);
}

const lacking = (runs, has) => runs.filter((place) => !has(place)).map((place) => DATA.runs[place].label);

// A level for each name, the first on top: names that look alike when cut stay apart.
const levels = (names) => ({ tickvals: names.map((_, level) => -level), ticktext: names, range: [0.5 - names.length, 0.5] });

// Plotly's layout in the page's colours; `more` goes over it, axes included.
function layout(more) {
  const axis = { gridcolor: css("--line"), linecolor: css("--line"), zerolinecolor: css("--soft"), zeroline: false, automargin: true };
  const { xaxis = {}, yaxis = {}, ...rest } = more;
  const titled = (one) => ({ ...axis, ...one, title: { text: one.title || "", font: { size: 13 } } });
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: css("--ink"), family: "system-ui, sans-serif", size: 12 },
    margin: { l: 60, r: 20, t: 16, b: 50 }, hovermode: "closest", legend: { orientation: "h", y: -0.2, yanchor: "top", x: 0 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--mark") },
    hoverlabel: { align: "left", bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink") } },
    ...rest, xaxis: titled(xaxis), yaxis: titled(yaxis),
  };
}
