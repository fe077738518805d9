// Plots of parts of the test split: slices, the reliability of probabilities, and users one by one.
const slicePlot = {
  title: "Slices",
  choices: () => [["metric", Object.keys(DATA.slices).map((name) => ["test/" + name, name])]],
  draw({ metric }) {
    const name = bare(metric), kinds = DATA.slices[name] || {}, runs = drawn(), whole = rowOf(metric);
    const names = Object.keys(kinds).sort().reverse();
    const ladder = whole ? [...names, "everybody"] : names;
    const value = (kind, place) => (kind === "everybody" ? whole.cells[place] && whole.cells[place][0] : kinds[kind][place]);
    const has = (place) => names.some((kind) => hasValue(kinds[kind][place]));
    const shown = runs.filter(has);
    const step = Math.min(0.1, 0.7 / Math.max(1, shown.length));
    const band = (level) => ({ type: "rect", xref: "paper", x0: 0, x1: 1, y0: level - 0.5, y1: level + 0.5, line: { width: 0 }, fillcolor: css("--card"), layer: "below" });
    return {
      traces: shown.map((place, turn) => ({
        x: ladder.map((kind) => value(kind, place)), y: ladder.map((_, level) => level - (turn - (shown.length - 1) / 2) * step),
        text: ladder.map(safe), mode: "markers", name: label(place), marker: { size: 10, color: colour(place), symbol: symbol(place) },
        hovertemplate: `<b>${label(place, 60)}</b><br>%{text}: %{x:.4f}<extra></extra>`,
      })),
      height: Math.max(380, 160 + ladder.length * Math.min(140, 44 + 8 * shown.length)),
      layout: layout({
        xaxis: { title: safe(name) }, showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
        yaxis: { tickvals: ladder.map((_, level) => level), ticktext: ladder.map((kind) => safe(short(kind))), range: [-0.5, ladder.length - 0.5], showgrid: false },
        shapes: ladder.map((_, level) => level).filter((level) => level % 2 === 0).map(band),
      }),
      says: `${name} in each slice of the test split, one mark for each run.`,
      lacks: lacking(runs, has),
      head: ["slice", ...shown.map((place) => DATA.runs[place].label)],
      rows: [...ladder].reverse().map((kind) => [kind, ...shown.map((place) => figure(value(kind, place)))]),
    };
  },
};

const reliabilityPlot = {
  title: "Reliability",
  choices: () => [["task", Object.keys(DATA.reliability).sort().map((name) => [name, name])]],
  draw({ task }) {
    const found = DATA.reliability[task] || {}, runs = drawn();
    const shown = runs.filter((place) => found[place]);
    const column = (place, which) => found[place].map((bin) => bin[which]);
    const most = Math.min(1, 1.05 * Math.max(0.01, ...shown.flatMap((place) => [...column(place, 0), ...column(place, 1)])));
    const even = { x: [0, most], y: [0, most], mode: "lines", name: "as said", hoverinfo: "skip", line: { color: css("--soft"), dash: "dot", width: 1 } };
    const lines = shown.map((place) => ({
      x: column(place, 0), y: column(place, 1), customdata: column(place, 2), mode: "lines+markers", name: label(place), legendgroup: place,
      line: { color: colour(place), width: 2, dash: dash(place) }, marker: { size: 7, symbol: symbol(place) },
      hovertemplate: `<b>${label(place, 60)}</b><br>said %{x:.3f}, happened %{y:.3f}<br>%{customdata:,} examples<extra></extra>`,
    }));
    const rows = shown.map((place) => ({
      x: column(place, 0), y: column(place, 2), yaxis: "y2", mode: "lines", legendgroup: place, showlegend: false, hoverinfo: "skip",
      line: { color: colour(place), width: 1.5, shape: "hvh", dash: dash(place) },
    }));
    const made = layout({ xaxis: { title: "probability that the model says", range: [0, most], anchor: "y2" }, yaxis: { title: "share that happened", range: [0, most], domain: [0.28, 1] }, showlegend: true, legend: { orientation: "h", y: -0.16, yanchor: "top", x: 0 } });
    made.yaxis2 = { ...made.yaxis, title: { text: "examples", font: { size: 13 } }, domain: [0, 0.2], range: undefined, type: "log", nticks: 3 };
    return {
      traces: [even, ...lines, ...rows], layout: made, height: 560,
      says: `Task ${task}: how often it happened, against the probability that was said. On the dotted line the probabilities are right; above it they are too low. Below: how many examples were given that probability.`,
      lacks: lacking(runs, (place) => found[place]),
      head: ["run", "said", "happened", "examples"],
      rows: shown.flatMap((place) => found[place].map((bin) => [DATA.runs[place].label, figure(bin[0]), figure(bin[1]), String(bin[2])])),
    };
  },
};

const userPlot = {
  title: "Users won and lost",
  choices: () => [["metric", Object.keys(DATA.gains).map((name) => [name, name])]],
  draw({ metric }) {
    const gains = DATA.gains[metric] || { runs: {}, limit: 1 }, reference = DATA.groups[group].reference;
    const runs = drawn().filter((place) => place !== reference), base = reference === null ? "" : DATA.runs[reference].label;
    const shown = runs.filter((place) => gains.runs[place]);
    const all = (place) => gains.runs[place][0] + gains.runs[place][1] + gains.runs[place][2];
    const parts = [["worse", 2, "--run1"], ["the same", 1, "--line"], ["better", 0, "--run0"]];
    const bars = parts.map(([name, which, paint]) => ({
      type: "bar", orientation: "h", name, y: shown.map((_, level) => -level), text: shown.map((place) => label(place, 60)), x: shown.map((place) => gains.runs[place][which] / all(place)),
      marker: { color: css(paint) }, customdata: shown.map((place) => gains.runs[place][which]), texttemplate: "%{x:.0%}", textposition: "inside",
      insidetextanchor: "middle", hovertemplate: `%{text}: ${name} for %{customdata:,} users (%{x:.1%})<extra></extra>`,
    }));
    const width = (2 * gains.limit) / ((shown.length && gains.runs[shown[0]][3].length) || 1);
    const lines = shown.map((place) => ({
      x: gains.runs[place][3].map((_, bin) => -gains.limit + (bin + 0.5) * width), y: gains.runs[place][3].map((count) => count / all(place)),
      xaxis: "x2", yaxis: "y2", mode: "lines", name: label(place), line: { shape: "hvh", color: colour(place), dash: dash(place), width: 2 },
      hovertemplate: `<b>${label(place, 60)}</b><br>%{x:+.3f}: %{y:.2%} of users<extra></extra>`,
    }));
    const height = 430 + 26 * shown.length, cut = 1 - (26 * shown.length + 20) / height;
    const made = layout({ barmode: "stack", xaxis: { tickformat: ".0%", range: [0, 1], side: "top", anchor: "y", title: "" }, yaxis: { domain: [cut, 1], ...levels(shown.map((place) => label(place))) }, showlegend: true, margin: { l: 60, r: 20, t: 30, b: 50 }, legend: { orientation: "h", traceorder: "normal", y: -0.16, yanchor: "top", x: 0 } });
    made.xaxis2 = { ...made.xaxis, side: "bottom", anchor: "y2", range: [-gains.limit, gains.limit], tickformat: "", zeroline: true, title: { text: `difference of a user's ${safe(metric)}`, font: { size: 13 } } };
    made.yaxis2 = { ...made.yaxis, tickvals: undefined, ticktext: undefined, range: undefined, domain: [0, Math.max(0.2, cut - 0.1)], anchor: "x2", tickformat: ".1%", rangemode: "tozero", title: { text: "share of users", font: { size: 13 } } };
    return {
      traces: [...bars, ...lines], layout: made, height,
      says: `Above: the share of users for whom a run's ${metric} is better, the same and worse than that of ${base}. Below: by how much, ` +
        "of the users for whom it is not the same.",
      lacks: lacking(runs, (place) => gains.runs[place]),
      head: ["run", "better", "the same", "worse"],
      rows: shown.map((place) => [DATA.runs[place].label, ...gains.runs[place].slice(0, 3).map((count) => count.toLocaleString("en"))]),
    };
  },
};

const everyMetric = {
  title: "Every metric",
  bare: true, // a table and no plot
  choices: () => [],
  draw() {
    const runs = drawn();
    const text = (cell) => (cell ? figure(cell[0]) + (cell[3] ? " ★" : "") + (hasValue(cell[1]) ? ` (${figure(cell[1])} to ${figure(cell[2])})` : "") : "-");
    return {
      says: "Every metric of the ticked runs, with 95 % intervals where users' own values are stored. ★: best of its group.", lacks: [],
      head: ["metric", ...runs.map((place) => DATA.runs[place].label)],
      rows: [...DATA.rows].sort((a, b) => b.metric.startsWith("test/") - a.metric.startsWith("test/")).map((row) => [row.metric, ...runs.map((place) => text(row.cells[place]))]),
    };
  },
};
