// The strip in the header: which model is live, and, where the server tells metrics, its latency, queue and fallbacks.

import * as api from "./api.js";
import { byId, el, milliseconds, percent, short } from "./dom.js";

const EVERY_MS = 5000, SECONDS = "recsys_request_seconds_bucket", LISTS = "/recommend";
let before = [], withMetrics = true, closed = false, timer = 0, told = () => {}, refused = () => {};

/** Look now and every few seconds while the page is in sight. `onInfo(info)`: gets each answer of /info, `onRefused(error)` why there is none. */
export function watchHealth(onInfo, onRefused) {
  [told, refused] = [onInfo, onRefused];
  document.addEventListener("visibilitychange", () => !document.hidden && look());
  return look();
}

/** Look again; after a new key, metrics may be readable, too. */
export function look({ again = false } = {}) {
  clearTimeout(timer);
  withMetrics ||= again;
  closed &&= !again;
  return once().finally(() => {
    clearTimeout(timer);
    if (!document.hidden && !closed) timer = setTimeout(look, EVERY_MS);
  });
}

async function once() {
  let info;
  try {
    info = await api.info();
  } catch (error) {
    if (error.status === 0) show([["state", "no answer", "bad"]]);
    else byId("health").hidden = true;
    refused(error);
    closed = error.status === 401 || error.status === 403; // until there is another key
    return;
  }
  told(info);
  const roles = Object.entries(info.models ?? {}).map(([role, model]) => [role, short(model.version)]);
  measured().then((more) => show([["state", "up", "good"], ...roles, ...more])); // the page need not wait for these
}

async function measured() {
  if (!withMetrics) return [];
  try {
    const now = parse(await api.metrics());
    const found = figures(now, before);
    before = now;
    return found;
  } catch {
    withMetrics = false; // not told here, or not to this key
    return [];
  }
}

function show(figures) {
  const strip = byId("health");
  strip.replaceChildren(...figures.map(([name, text, kind]) => el("div", { class: kind ?? null }, el("dt", {}, name), el("dd", {}, text))));
  strip.hidden = false;
}

/** Prometheus text as [{name, labels, value}]. */
export function parse(text) {
  const found = [...text.matchAll(/^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([^\s]+)/gm)];
  return found.map(([, name, labels = "", value]) => ({
    name, value: Number(value.replace("Inf", "Infinity")),
    labels: Object.fromEntries([...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label, text]) => [label, text])),
  }));
}

/** Latency and fallbacks of what happened between two looks, or since the start where nothing did; queue and drift of now. */
export function figures(now, then) {
  const fits = (each, labels) => Object.entries(labels).every(([label, value]) => each.labels[label] === value);
  const sum = (samples, name, labels) =>
    samples.filter((each) => each.name === name && fits(each, labels)).reduce((total, each) => total + each.value, 0);
  const since = (name, labels = {}) => sum(now, name, labels) - sum(then, name, labels) || sum(now, name, labels);
  const has = (name) => now.some((each) => each.name === name);
  const bounds = [...new Set(now.filter((each) => each.name === SECONDS && each.labels.route === LISTS).map((each) => each.labels.le))];
  const counts = bounds.map((le) => [Number(le.replace("+Inf", "Infinity")), since(SECONDS, { route: LISTS, le })]).sort((a, b) => a[0] - b[0]);
  const [median, tail, answers] = [quantile(counts, 0.5), quantile(counts, 0.99), counts.at(-1)?.[1] ?? 0];
  return [
    median !== null && ["p50", milliseconds(1000 * median)],
    tail !== null && ["p99", milliseconds(1000 * tail)],
    has("recsys_queue") && ["queue", String(sum(now, "recsys_queue", {}))],
    answers > 0 && ["fallbacks", percent(Math.min(1, since("recsys_fallbacks_total") / answers))],
    has("recsys_score_drift_psi") && ["drift (PSI)", sum(now, "recsys_score_drift_psi", {}).toFixed(2)],
  ].filter(Boolean);
}

/** Of cumulative counts by upper bound, linear within a bucket. */
function quantile(counts, share) {
  const whole = counts.length ? counts.at(-1)[1] : 0;
  if (!(whole > 0)) return null;
  const at = counts.findIndex(([, count]) => count >= share * whole);
  const [low, under] = at > 0 ? counts[at - 1] : [0, 0];
  const [high, count] = counts[at];
  return Number.isFinite(high) ? low + ((high - low) * (share * whole - under)) / Math.max(1e-12, count - under) : low;
}
