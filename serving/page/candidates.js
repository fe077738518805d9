// All candidates in a table that sorts: what retrieval said, what each task says, and where an item ended.

import { bar, el, empty, figure, hidden, other, percent, plural, scale } from "./dom.js";
import { badge, cut, tasksOf, titleOf } from "./list.js";

let sorted = { key: "value", down: true };

/** `answer` with its explanation; `open(item)`: what a click on a title does. */
export function candidatesView(answer, open) {
  const candidates = answer.explanation?.candidates ?? [];
  if (!candidates.length) return empty("No candidates", "The model found none for this question; the list is what stands in for it.");
  const places = new Map(answer.items.map((item, place) => [item.item_id, place + 1]));
  const tasks = tasksOf(candidates);
  const columns = [
    { key: "place", name: "In list", of: (item) => places.get(item.item_id), text: (value) => (value === undefined ? "" : `# ${value}`), up: true },
    { key: "retrieval", name: "Retrieval score", of: (item) => item.retrieval_score ?? undefined, text: figure, bar: "found" },
    ...tasks.map((task) => ({ key: `task ${task}`, name: task, of: (item) => item.tasks[task], text: percent, bar: "task" })),
    { key: "value", name: tasks.length ? "Value" : "Score", of: (item) => item.score, text: figure, bar: "value" },
  ];
  for (const column of columns) column.size = scale(candidates.map(column.of));
  const view = el("div", {});
  const draw = (focus) => {
    view.replaceChildren(note(candidates, places), table(columns, ordered(candidates, columns), { open, draw, places }));
    if (focus) view.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus();
  };
  draw();
  return view;
}

const note = (candidates, places) => {
  const inList = candidates.filter((item) => places.has(item.item_id)).length;
  return el("p", { class: "hint" }, `${plural(candidates.length, "candidate")}, ${inList} of them in the list (marked). `,
    "Each bar is a share of its column’s largest; a click on a heading sorts.");
};

/** Those without a value come last, either way. */
function ordered(candidates, columns) {
  const column = columns.find((each) => each.key === sorted.key) ?? columns.at(-1);
  const rank = (item) => column.of(item) ?? (sorted.down ? -Infinity : Infinity);
  return [...candidates].sort((a, b) => {
    const [first, second] = sorted.down ? [rank(b), rank(a)] : [rank(a), rank(b)];
    return first === second ? 0 : first < second ? -1 : 1;
  });
}

function table(columns, items, { open, draw, places }) {
  const sort = (column) => {
    sorted = { key: column.key, down: sorted.key === column.key ? !sorted.down : !column.up };
    draw(column.key);
  };
  const head = (column) => {
    const chosen = sorted.key === column.key;
    const button = el("button", { type: "button", dataset: { key: column.key }, onclick: () => sort(column) }, column.name);
    return el("th", { scope: "col", "aria-sort": chosen ? (sorted.down ? "descending" : "ascending") : null }, button);
  };
  const cell = (column, item) => {
    const value = column.of(item);
    if (value === undefined) return el("td", { class: "soft" }, column.key === "place" ? hidden("not in the list") : "–");
    return el("td", {}, column.text(value), column.bar ? bar(column.size(value), column.bar) : null);
  };
  const row = (item) => el("tr", { dataset: { item: item.item_id }, class: places.has(item.item_id) ? "inlist" : null },
    cell(columns[0], item),
    el("th", { scope: "row", class: "text" },
      el("button", { type: "button", class: "title", title: cut(titleOf(item)), onclick: () => open(item) }, other(titleOf(item))),
      el("span", { class: "under" }, badge(item.source), other(item.item_id, { class: "id", title: cut(item.item_id) }))),
    columns.slice(1).map((column) => cell(column, item)));
  const [place, ...rest] = columns.map(head);
  return el("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Candidates" },
    el("table", { class: "items" }, el("caption", { class: "hidden" }, "Candidates"),
      el("thead", {}, el("tr", {}, place, el("th", { scope: "col", class: "text" }, "Item"), rest)), el("tbody", {}, items.map(row))));
}
