// What changed between two lists of items, and how to say it.

import { el, hidden, plural } from "./dom.js";

/** {of: item_id -> {kind, by}, gone: items, shared, up, down, added} of the list `after` against the list `before`. */
export function moves(before, after) {
  const was = new Map(before.map((item, place) => [item.item_id, place]));
  const is = new Set(after.map((item) => item.item_id));
  const of = new Map(after.map((item, place) => [item.item_id, move(was.get(item.item_id), place)]));
  const count = (kind) => [...of.values()].filter((each) => each.kind === kind).length;
  const gone = before.filter((item) => !is.has(item.item_id));
  return { of, gone, up: count("up"), down: count("down"), added: count("new"), shared: after.length - count("new") };
}

function move(was, place) {
  if (was === undefined) return { kind: "new", by: 0 };
  return { kind: place < was ? "up" : place > was ? "down" : "same", by: Math.abs(was - place) };
}

export const changed = (found) => found.up + found.down + found.added + found.gone.length > 0;

/** The mark of a row: an arrow with how many places, or "new"; nothing for one that stayed. */
export function mark(found) {
  if (!found || found.kind === "same") return null;
  if (found.kind === "new") return el("span", { class: "move new" }, "new");
  const arrow = el("span", { "aria-hidden": "true" }, found.kind === "up" ? "▲" : "▼");
  return el("span", { class: `move ${found.kind}` }, arrow, hidden(`${found.kind} by `), String(found.by));
}

/** "3 moved up, 2 moved down, 1 new, 1 gone". */
export function told(found) {
  const verb = (count, text) => count && `${count} ${text}`;
  const parts = [
    verb(found.up, "moved up"), verb(found.down, "moved down"),
    verb(found.added, "new"), verb(found.gone.length, "gone"),
  ].filter(Boolean);
  return parts.length ? parts.join(", ") : "nothing moved";
}

/** Overlap@k and the mean change of place of the items that both lists have. */
export function agreement(found, k) {
  const steps = [...found.of.values()].filter((each) => each.kind !== "new").map((each) => each.by);
  const mean = steps.length ? steps.reduce((sum, by) => sum + by, 0) / steps.length : 0;
  return { overlap: k ? found.shared / k : 0, mean, text: `${plural(found.shared, "item")} of ${k} in both` };
}
