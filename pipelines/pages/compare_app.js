// Tabs, choices and sorting. A plot is drawn when its tab is opened, and again when what it shows has changed.
const PLOTS = [costPlot, differencePlot, curvePlot, slicePlot, reliabilityPlot, userPlot, everyMetric];
const CONFIG = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };
const views = [];
let open = 0;

function view(plot, number) {
  const tab = make("button", { role: "tab", type: "button", id: `tab${number}`, "aria-controls": `panel${number}`, text: plot.title,
    onclick: () => show(number), onkeydown: (event) => turn(event, number) });
  const box = make("div", { class: "plot", role: "img" }), says = make("figcaption"), numbers = make(plot.bare ? "div" : "details", {}, ...(plot.bare ? [] : [make("summary", { text: "the same as a table" })]));
  const tools = make("div", { class: "tools" }), picked = {};
  for (const [name, options] of plot.choices()) {
    picked[name] = name === "metric" ? main(options.map(([value]) => [value])) : (options[0] || [""])[0];
    if (options.length) tools.append(select(name, options, picked[name], (value) => { picked[name] = value; draw(number); }));
  }
  const panel = make("div", { role: "tabpanel", id: `panel${number}`, "aria-labelledby": `tab${number}`, tabindex: "0" },
    tools, make("figure", {}, box, says, numbers));
  panel.hidden = number > 0;
  document.getElementById("tabs").append(tab);
  document.getElementById("panels").append(panel);
  return { plot, tab, panel, box, says, numbers, picked, stale: true };
}

function draw(number) {
  const { plot, box, says, numbers, picked } = views[number], made = plot.draw(picked);
  const nothing = !made.rows.length;
  says.replaceChildren(groupLabel() + (nothing ? "Nothing to draw: " + (drawn().length ? "no ticked run of this group has stored it. " : "no run of this group is ticked. ") : made.says));
  if (made.lacks.length) {
    const names = made.lacks.slice(0, 10).join(", ") + (made.lacks.length > 10 ? ` and ${made.lacks.length - 10} more` : "");
    says.append(make("span", { class: "lack", text: ` Not stored by: ${names}.` }));
  }
  box.setAttribute("aria-label", says.textContent);
  box.hidden = nothing || !made.traces;
  if (box.hidden) Plotly.purge(box);
  else {
    box.style.height = `${made.height || 440}px`;
    Plotly.react(box, made.traces, { ...made.layout, height: made.height || 440 }, CONFIG);
  }
  const whole = table(made.head, made.rows);
  if (made.traces) numbers.replaceChildren(numbers.firstElementChild, whole);
  else numbers.replaceChildren(whole);
  numbers.hidden = nothing;
  views[number].stale = false;
  box.dataset.drawn = String(Number(box.dataset.drawn || 0) + 1);
}

function show(number, focus = false) {
  open = number;
  views.forEach(({ tab, panel }, place) => {
    tab.setAttribute("aria-selected", String(place === number));
    tab.tabIndex = place === number ? 0 : -1;
    panel.hidden = place !== number;
  });
  if (focus) views[number].tab.focus();
  if (views[number].stale) draw(number);
}

function turn(event, number) {
  const to = { ArrowRight: number + 1, ArrowLeft: number - 1, Home: 0, End: views.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  show((to + views.length) % views.length, true);
}

function refresh() {
  views.forEach((each) => { each.stale = true; });
  for (const box of document.querySelectorAll("#runs input[type=checkbox]")) {
    const place = Number(box.value);
    box.checked = chosen.has(place);
    box.nextElementSibling.style.background = box.checked ? colour(place) : "transparent";
  }
  document.getElementById("picked").textContent = `${chosen.size} of ${DATA.runs.length} runs are ticked`;
  if (views.length) draw(open);
}

function pick(which) {
  chosen.clear();
  DATA.groups.forEach((_, number) => byRank(places(number)).slice(0, { best: DATA.selected, all: Infinity, none: 0 }[which]).forEach((place) => chosen.add(place)));
  refresh();
}

function sort(button) {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], column = head.cellIndex;
  const up = head.getAttribute("aria-sort") === "descending" || (column === 0 && !head.hasAttribute("aria-sort"));
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = (row) => row.cells[column].dataset.sort;
  const compare = (a, b) => (column === 0 ? a.localeCompare(b, "en", { numeric: true }) : Number(a) - Number(b));
  const order = (a, b) => (a === "" || b === "" ? (a === "") - (b === "") : (up ? 1 : -1) * compare(a, b)); // what is absent stays last
  body.append(...[...body.rows].sort((a, b) => order(value(a), value(b))));
}

// The group with the most runs that have measured the main metric; the first where they tie.
function richest() {
  const measured = (number) => places(number).filter((place) => (rowOf(DATA.main) || { cells: [] }).cells[place]).length;
  return DATA.groups.reduce((best, _, number) => (measured(number) > measured(best) ? number : best), 0);
}

function start() {
  group = richest();
  PLOTS.forEach((plot, number) => views.push(view(plot, number)));
  if (DATA.groups.length > 1) {
    const names = DATA.groups.map((each, number) => [String(number), `${each.letter}: ${each.protocol}, data ${each.data}`]);
    document.getElementById("groups").append(select("group", names, String(group), (value) => { group = Number(value); refresh(); }));
  }
  document.getElementById("runs").addEventListener("change", (event) => {
    if (event.target.type !== "checkbox") return;
    chosen[event.target.checked ? "add" : "delete"](Number(event.target.value));
    refresh();
  });
  for (const button of document.querySelectorAll("[data-pick]")) button.addEventListener("click", () => pick(button.dataset.pick));
  for (const button of document.querySelectorAll("#runs thead button")) button.addEventListener("click", () => sort(button));
  document.getElementById("find").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const row of document.querySelectorAll("#runs tbody tr")) row.hidden = !row.cells[0].dataset.sort.toLowerCase().includes(wanted);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  pick("best");
  show(0);
}

start();
