// Plots of one group's runs. Each gives {choices, draw}: draw(picked) gives {traces, layout, says, lacks, head, rows}.
const tested = () => DATA.rows.filter((row) => row.metric.startsWith("test/") && row.cells.some(Boolean));
const metricChoice = (rows = tested()) => rows.map((row) => [row.metric, bare(row.metric)]);
const main = (options) => (options.some(([value]) => value === DATA.main) ? DATA.main : (options[0] || [""])[0]);

function frontier(points, sign) {
  // Runs that no run beats at the same or a lower cost, the cheapest first.
  const kept = [];
  for (const point of [...points].sort((a, b) => a.x - b.x || sign * (b.y - a.y))) {
    if (!kept.length || sign * point.y > sign * kept[kept.length - 1].y) kept.push(point);
  }
  return kept;
}

const costPlot = {
  title: "Metric against cost",
  choices: () => [["metric", metricChoice()], ["cost", Object.entries(DATA.costs)]],
  draw({ metric, cost }) {
    const row = rowOf(metric);
    const all = places(group);
    const points = row && cost ? all.filter((place) => row.cells[place] && hasValue(DATA.runs[place].costs[cost]))
      .map((place) => ({ place, x: DATA.runs[place].costs[cost], y: row.cells[place][0], cell: row.cells[place] })) : [];
    const costs = points.map((point) => point.x);
    const log = costs.length > 1 && Math.min(...costs) > 0 && Math.max(...costs) / Math.min(...costs) > 20;
    const [least, most] = [Math.min(...costs), Math.max(...costs)], scale = log ? Math.log : (value) => value;
    const right = (x) => scale(x) - scale(least) > 0.6 * (scale(most) - scale(least));
    const trace = (point) => ({
      x: [point.x], y: [point.y], mode: points.length <= 12 ? "markers+text" : "markers", name: label(point.place), showlegend: false,
      text: [label(point.place, 24)], textposition: `${["middle", "top", "bottom"][DATA.runs[point.place].rank % 3]} ${right(point.x) ? "left" : "right"}`, textfont: { size: 11 }, cliponaxis: false,
      marker: { size: 11, color: colour(point.place), symbol: symbol(point.place) },
      error_y: hasValue(point.cell[1]) ? {
        type: "data", symmetric: false, array: [point.cell[2] - point.y], arrayminus: [point.y - point.cell[1]],
        color: colour(point.place), thickness: 1.2, width: 4,
      } : undefined,
      hovertemplate: `<b>${label(point.place, 60)}</b><br>${safe(bare(metric))} %{y:.4f}<br>${DATA.costs[cost]} %{x:,.4~g}<extra></extra>`,
    });
    const best = row && row.direction ? frontier(points, row.direction) : [];
    const line = { x: best.map((each) => each.x), y: best.map((each) => each.y), mode: "lines", hoverinfo: "skip", showlegend: false,
      line: { shape: "hv", color: css("--soft"), width: 1, dash: "dot" } };
    const unchosen = points.filter((point) => !chosen.has(point.place));
    const others = { x: unchosen.map((p) => p.x), y: unchosen.map((p) => p.y), mode: "markers", showlegend: false,
      text: unchosen.map((p) => label(p.place, 60)), hovertemplate: "<b>%{text}</b><br>%{y:.4f}<br>%{x:,.4~g}<extra></extra>",
      marker: { size: 7, color: css("--soft"), opacity: 0.45 } };
    return {
      traces: [line, others, ...points.filter((point) => chosen.has(point.place)).map(trace)],
      layout: layout({ xaxis: { title: DATA.costs[cost], type: log ? "log" : "linear" }, yaxis: { title: safe(bare(metric)) } }),
      says: `${bare(metric)} against ${DATA.costs[cost]} of ${points.length} runs; the dotted line joins those that none beats at a lower ` +
        "cost. Runs that are not ticked are grey.",
      lacks: lacking(all, (place) => points.some((point) => point.place === place)),
      head: ["run", bare(metric), DATA.costs[cost] || "cost"],
      rows: points.map((point) => [DATA.runs[point.place].label, figure(point.y), point.x.toLocaleString("en")]),
    };
  },
};

const differencePlot = {
  title: "Differences",
  choices: () => [["metric", metricChoice(tested().filter((row) => row.cells.some((cell) => cell && cell[5])))]],
  draw({ metric }) {
    const row = rowOf(metric), reference = DATA.groups[group].reference;
    const runs = drawn().filter((place) => place !== reference);
    const has = (place) => row && row.cells[place] && row.cells[place][5];
    const shown = runs.filter(has).sort((a, b) => row.cells[b][5][0] - row.cells[a][5][0]);
    const traces = shown.map((place, level) => {
      const [mean, low, high, p, wins, losses, users, sure] = row.cells[place][5];
      return {
        x: [mean], y: [-level], mode: "markers", showlegend: false,
        marker: { size: 11, color: sure ? colour(place) : css("--page"), line: { color: colour(place), width: 2 }, symbol: symbol(place) },
        error_x: { type: "data", symmetric: false, array: [high - mean], arrayminus: [mean - low], color: colour(place), thickness: 2, width: 5 },
        hovertemplate: `<b>${label(place, 60)}</b><br>%{x:+.4f} (${figure(low, true)} to ${figure(high, true)})<br>p ${p} after Holm<br>` +
          `${wins} users better, ${losses} worse of ${users}<extra></extra>`,
      };
    });
    const base = reference === null ? "" : DATA.runs[reference].label;
    return {
      traces, height: Math.max(300, 110 + 30 * shown.length),
      layout: layout({ xaxis: { title: `${safe(bare(metric))}: run minus reference`, zeroline: true, zerolinewidth: 2 }, yaxis: levels(shown.map((place) => label(place))), margin: { l: 60, r: 20, t: 16, b: 50 } }),
      says: `Each run's ${bare(metric)} minus that of ${base}, mean over the users of both with its 95 % interval. Filled: beyond chance ` +
        "(p < .05 after Holm's correction).",
      lacks: lacking(runs, has),
      head: ["run", "difference", "low", "high", "p (Holm)", "users"],
      rows: shown.map((place) => {
        const [mean, low, high, p, , , users] = row.cells[place][5];
        return [DATA.runs[place].label, figure(mean, true), figure(low, true), figure(high, true), String(p), String(users)];
      }),
    };
  },
};

const urgency = (name) => 2 * name.endsWith("/valid/" + bare(DATA.main)) + name.includes("/valid/");

const curvePlot = {
  title: "Learning curves",
  choices: () => [["curve", Object.keys(DATA.curves).sort((a, b) => urgency(b) - urgency(a)).map((name) => [name, name])]],
  draw({ curve }) {
    const found = DATA.curves[curve] || {}, runs = drawn();
    const shown = runs.filter((place) => found[place]);
    const left = curve.endsWith("/loss") ? runs.filter((place) => !found[place] && DATA.unread.includes(place)) : [];
    const few = (place) => found[place][0].length <= 40;
    return {
      traces: shown.map((place) => ({
        x: found[place][0], y: found[place][1], mode: few(place) ? "lines+markers" : "lines", name: label(place),
        line: { color: colour(place), dash: dash(place), width: 2 }, marker: { size: 5, symbol: symbol(place) },
        hovertemplate: `<b>${label(place, 60)}</b><br>step %{x:,}: %{y:.4f}<extra></extra>`,
      })),
      layout: layout({ xaxis: { title: "step" }, yaxis: { title: safe(curve) }, showlegend: true }),
      says: `${curve} by training step, at most 200 points of each run.` +
        (left.length ? ` Not read, to be quick: that of ${left.length} more; compare fewer runs to see it.` : ""),
      lacks: lacking(runs, (place) => found[place] || left.includes(place)),
      head: ["run", "points", "first", "last", "lowest", "highest"],
      rows: shown.map((place) => {
        const values = found[place][1];
        return [DATA.runs[place].label, String(values.length), figure(values[0]), figure(values[values.length - 1]),
          figure(Math.min(...values)), figure(Math.max(...values))];
      }),
    };
  },
};
