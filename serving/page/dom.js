// Making elements and writing figures. Text only ever goes in as text nodes, so that no title or id can be markup.

/** An element. `given`: class, dataset and on* handlers by name, everything else an attribute; null and false are left out. */
export function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (name === "dataset") Object.assign(made.dataset, value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Text that others wrote, in its own writing direction. */
export const other = (text, given = {}) => el("bdi", given, text);

export const hidden = (text) => el("span", { class: "hidden" }, text);

export const empty = (title, text) => el("div", { class: "empty" }, el("strong", {}, title), el("p", {}, text));

/** A bar of `share` of its cell, under the text. The style is set by script, which a strict policy allows. */
export function bar(share, kind = "") {
  const fill = el("span", { class: "fill" });
  fill.style.width = `${Math.round(1000 * Math.min(1, Math.max(0, share || 0))) / 10}%`;
  return el("span", { class: `bar ${kind}`, "aria-hidden": "true" }, fill);
}

/** A value -> its share of the column: from the least of it, or from 0 where all are positive, to the largest. */
export function scale(values) {
  const known = values.filter(Number.isFinite);
  const low = Math.min(0, ...known), high = Math.max(...known);
  return (value) => (Number.isFinite(value) && high > low ? (value - low) / (high - low) : 0);
}

export const plural = (count, one, many = one + "s") => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

export const percent = (share) => (share === 0 || share >= 0.0995 ? `${(100 * share).toFixed(1)} %` : `${(100 * share).toPrecision(2)} %`);

export const figure = (value) => (Number.isFinite(value) ? value.toFixed(Math.abs(value) >= 100 ? 1 : 3) : "–");

export const milliseconds = (ms) => (ms >= 100 ? `${Math.round(ms)} ms` : `${ms.toPrecision(ms >= 1 ? 2 : 1)} ms`);

const STEPS = [[60_000, 1000, "second"], [3_600_000, 60_000, "minute"], [86_400_000, 3_600_000, "hour"], [5_184_000_000, 86_400_000, "day"]];
const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** Times of a data set may lie outside what a date can hold. */
const isDate = (time) => Math.abs(time) <= 8.64e15;

/** When something was, in words: "3 hours ago", or the day where that is months away. */
export function ago(time, now = Date.now()) {
  if (!isDate(time)) return "";
  for (const [below, unit, name] of STEPS) {
    if (Math.abs(now - time) < below) return AGO.format(Math.round((time - now) / unit), name);
  }
  return day(time);
}

const day = (time) => new Intl.DateTimeFormat("en", { day: "numeric", month: "short", year: "numeric" }).format(time);

/** The time to the second, and as a computer writes it. */
export const moment = (time) => (isDate(time) ? new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium" }).format(time) : null);
export const iso = (time) => (isDate(time) ? new Date(time).toISOString() : null);

/** A version or a request, short enough to read. */
export const short = (version) => (version.length > 10 ? version.slice(0, 8) : version);
