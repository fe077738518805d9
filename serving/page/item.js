// The panel of one item: why it is where it is, what may be posted about it, and which items are most like it.

import { bar, byId, el, figure, hidden, other, percent, plural } from "./dom.js";
import { badge, cut, eventsFor, tasksOf, titleOf } from "./list.js";
import { SOURCES, named } from "./words.js";

const panel = byId("item");

/**
 * `item`: as in the list, or {item_id, title, tasks: {}} where only that is known. `answer`: what it stands in.
 * `value`: the formula as {task: weight} or as a text, where known; `on`: {post, open, close}; `user`: null where items asked.
 */
export function showItem({ item, answer, value, on, user }) {
  const candidates = answer.explanation?.candidates ?? [];
  const same = (each) => each.item_id === item.item_id;
  const known = answer.items.find(same) ?? candidates.find(same) ?? item;
  const close = el("button", { type: "button", class: "plain close", "aria-label": "Close the panel", onclick: on.close }, "✕");
  panel.replaceChildren(
    el("div", { class: "head" }, el("h2", { title: cut(titleOf(known)), tabindex: "-1" }, other(titleOf(known))), close),
    el("p", { class: "under" }, known.source ? badge(known.source) : null, other(known.item_id, { class: "id", title: cut(known.item_id) })),
    why(known, answer, candidates),
    tasks(known, candidates, typeof value === "object" ? value : null),
    typeof value === "string" ? el("p", { class: "soft" }, "value = ", other(value)) : "",
    user === null ? "" : actions(known, tasksOf(candidates.concat(answer.items)), on),
    el("h3", {}, "Similar items"),
    el("div", { class: "similar", "aria-live": "polite" }, el("p", { class: "soft" }, "looking…")),
  );
  panel.hidden = false;
  return known;
}

/** Sentences about how the item came to its place. */
function why(item, answer, candidates) {
  const place = answer.items.findIndex((each) => each.item_id === item.item_id) + 1;
  const byValue = candidates.findIndex((each) => each.item_id === item.item_id) + 1;
  const found = rankBy(item, candidates, (each) => each.retrieval_score);
  const said = [];
  if (item.reason) said.push([other(item.reason)]);
  if (place) said.push([`Stands at place ${place} of the list${byValue && byValue !== place ? `, and at ${byValue} by value alone` : ""}.`]);
  else if (byValue) said.push([`Not in the list: place ${byValue} of ${candidates.length} candidates by value.`]);
  else said.push(["Not among the candidates of this answer."]);
  const meaning = item.source && named(SOURCES, item.source)[1];
  if (meaning) said.push([`It was ${meaning.includes("found") ? meaning : `put there because it is: ${meaning}`}.`]);
  if (found && Number.isFinite(item.retrieval_score)) said.push([`Retrieval score ${figure(item.retrieval_score)}, place ${found} of ${candidates.length}.`]);
  if (Number.isFinite(item.propensity)) said.push([`Chance had a part: it comes to this place with probability ${percent(item.propensity)}.`]);
  return el("div", { class: "why" }, el("h3", {}, "Why"), el("ul", {}, said.map((each) => el("li", {}, each))));
}

function rankBy(item, candidates, of) {
  const own = of(item);
  return Number.isFinite(own) ? 1 + candidates.filter((each) => of(each) > own).length : 0;
}

/** Each task: its probability, how that compares with the candidates, and what it adds to the value. */
function tasks(item, candidates, weights) {
  const names = Object.keys(item.tasks);
  if (!names.length) return "";
  const adds = (task) => (weights?.[task] ?? 0) * item.tasks[task];
  const most = Math.max(...names.map((task) => (weights ? adds(task) : item.tasks[task])));
  const rows = names.map((task) => el("tr", {},
    el("th", { scope: "row", title: cut(task) }, task),
    el("td", { class: "soft" }, candidates.length ? `# ${rankBy(item, candidates, (each) => each.tasks[task])}` : ""),
    el("td", {}, percent(item.tasks[task]), weights ? el("span", { class: "soft" }, ` × ${weights[task] ?? 0}`) : ""),
    el("td", {}, weights ? figure(adds(task)) : "", bar((weights ? adds(task) : item.tasks[task]) / most))));
  const total = el("tr", { class: "total" }, el("th", { scope: "row" }, "value"), el("td"), el("td"), el("td", {}, figure(item.score)));
  return el("table", { class: "tasks" }, el("caption", { class: "hidden" }, "What the ranker says"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Task"),
      el("th", { scope: "col", title: `place among the ${candidates.length} candidates` }, "Place"),
      el("th", { scope: "col" }, "Chance"), el("th", { scope: "col" }, weights ? "Adds" : hidden("bar")))),
    el("tbody", {}, rows, weights ? total : ""));
}

const actions = (item, names, on) => el("div", { class: "post" }, el("h3", {}, "Post an event"),
  el("div", { class: "acts", role: "group", "aria-label": "post an event" }, eventsFor(names).map((event) =>
    el("button", { type: "button", class: "act", dataset: { event }, onclick: () => on.post(item, event) }, event))));

/** Put the answer of POST /similar, or why there is none, into the open panel. */
export function showSimilar(found, { answer, on }) {
  const place = panel.querySelector(".similar");
  if (!place) return;
  if (typeof found === "string") return place.replaceChildren(el("p", { class: "soft" }, found));
  const listed = new Map(answer.items.map((item, at) => [item.item_id, at + 1]));
  const had = new Set((answer.explanation?.history ?? []).map((entry) => entry.item_id));
  const row = (item) => el("li", { dataset: { item: item.item_id } },
    el("button", { type: "button", class: "title", title: cut(titleOf(item)), onclick: () => on.open(item) }, other(titleOf(item))),
    el("span", { class: "figure" }, figure(item.score), bar(item.score)),
    el("span", { class: "under" }, other(item.item_id, { class: "id" }),
      listed.has(item.item_id) && el("span", { class: "badge note" }, `# ${listed.get(item.item_id)} in the list`),
      had.has(item.item_id) && el("span", { class: "badge" }, "in the history")));
  place.replaceChildren(found.items.length ? el("ol", {}, found.items.map(row)) : el("p", { class: "soft" }, "None."),
    el("p", { class: "soft" }, `${plural(found.items.length, "item")} by cosine of item vectors, ${found.version.slice(0, 8)}`));
}

export function hideItem() {
  panel.hidden = true;
  panel.replaceChildren();
}

export const focusItem = () => panel.querySelector("h2")?.focus();
