// The list: each item with its value, the probability of each task, where it comes from, why, and what a user may do with it.

import { bar, el, empty, figure, hidden, other, percent, scale } from "./dom.js";
import { mark } from "./moves.js";
import { EVENTS, SOURCES, named } from "./words.js";

/** The tasks of an answer: those of the first item that the ranker saw. */
export const tasksOf = (items) => Object.keys(items.find((item) => Object.keys(item.tasks).length)?.tasks ?? {});

/** What stands for an item: its title, or its id where there is none to be seen, or that as a program would write it. */
export const titleOf = (item) => [item.title, item.item_id].find(canBeSeen) ?? JSON.stringify(item.item_id);

const canBeSeen = (text) => /[^\s\p{C}]/u.test(text ?? "");

/** The names of events to post for an item: click, like and purchase, and whatever else the model has a task for. */
export const eventsFor = (tasks) => [...new Set([...EVENTS, ...tasks])];

/**
 * The table of `answer`. `candidates`: what the bars are scaled by; `found`: what moved, or null;
 * `on`: {open(item), post(item, event), add(item)}; `user`: null where a list of items asked; `busy`: id of an item posted now.
 */
export function listView({ answer, candidates, found, on, user, opened }) {
  if (!answer.items.length) return empty("No items", "Nothing is left after the filters: take some of them away.");
  const tasks = tasksOf(answer.items);
  const drawn = answer.items.some((item) => item.propensity !== null && item.propensity !== undefined);
  const sizes = new Map(tasks.map((task) => [task, scale([0, ...candidates.concat(answer.items).map((item) => item.tasks[task])])]));
  const size = scale(answer.items.map((item) => item.score));
  const head = el("tr", {},
    el("th", { scope: "col", class: "place" }, hidden("place")), el("th", { scope: "col", class: "text" }, "Item"),
    el("th", { scope: "col" }, tasks.length ? "Value" : "Score"), tasks.map((task) => el("th", { scope: "col" }, task)),
    drawn && el("th", { scope: "col", title: "chance with which the item came to its place" }, "Propensity"));
  const common = commonReason(answer.items);
  const rows = answer.items.map((item, place) => el("tr", { dataset: { item: item.item_id }, class: rowClass(item, found, opened) },
    el("td", { class: "place" }, String(place + 1), mark(found?.of.get(item.item_id))),
    el("th", { scope: "row", class: "text" }, itemCell(item, { user, on, reason: common ? null : item.reason })),
    el("td", { class: "value", dataset: { name: tasks.length ? "value" : "score" } }, figure(item.score), bar(size(item.score), "value")),
    tasks.map((task) => taskCell(task, item.tasks[task], sizes.get(task))),
    drawn && el("td", {}, item.propensity === null ? "–" : percent(item.propensity))));
  return el("div", {}, common && el("p", { class: "hint reason" }, "All of them: ", other(common)),
    el("div", { class: "scroll" },
      el("table", { class: "items" }, el("caption", { class: "hidden" }, "The list, best first"), el("thead", {}, head), el("tbody", {}, rows))));
}

/** What every item has for a reason is said once. */
const commonReason = (items) => (items.length > 1 && items.every((item) => item.reason === items[0].reason) ? items[0].reason : "");

function rowClass(item, found, opened) {
  const kind = found?.of.get(item.item_id)?.kind;
  return `${kind && kind !== "same" ? `moved ${kind}` : ""} ${item.item_id === opened ? "opened" : ""}`;
}

const taskCell = (task, probability, size) =>
  el("td", { dataset: { name: task } }, probability === undefined ? hidden("not known") : [percent(probability), bar(size(probability))]);

function itemCell(item, { user, on, reason }) {
  const title = titleOf(item);
  const button = (text, event, onclick) => el("button", { type: "button", class: "act", dataset: { event }, onclick }, text, hidden(`: ${title}`));
  const buttons = user === null
    ? [button("add to history", "add", () => on.add(item))]
    : EVENTS.map((event) => button(event, event, () => on.post(item, event)));
  return [
    el("button", { type: "button", class: "title", title: cut(title), onclick: () => on.open(item) }, other(title)),
    el("div", { class: "under" }, badge(item.source), other(item.item_id, { class: "id", title: cut(item.item_id) }),
      el("span", { class: "acts", role: "group", "aria-label": user === null ? "ask with it" : "post an event" }, buttons)),
    reason ? el("p", { class: "reason" }, other(reason)) : null,
  ];
}

/** A tooltip of a thousand characters helps nobody. */
export const cut = (text) => (text.length > 200 ? text.slice(0, 200) + "…" : text);

/** Where an item comes from; what stands in for the model is marked as such. */
export function badge(source) {
  const [name, meaning] = named(SOURCES, source);
  const standsIn = !["generation", "retrieval"].includes(source);
  return el("span", { class: `badge ${standsIn ? "warn" : ""}`, title: meaning }, name);
}
