// Two versions of the model side by side: the same question, each version pinned, and what moved between the lists.

import { recommend } from "./api.js";
import { byId, el, empty, figure, hidden, other, percent, plural, short } from "./dom.js";
import { badge, cut, titleOf } from "./list.js";
import { flag } from "./words.js";
import { agreement, mark, moves, told } from "./moves.js";

let turn = 0; // of comparisons, so that a late one does not replace a newer one

/**
 * Ask both versions of `pair` at once for `body` and show their lists; the body's own version is left aside.
 * `models`: {role: {version, ...}}; `choose(left, right)`: after a choice; `open(item)`: a click on a title; `refused(error)`.
 */
export async function showComparison({ body, models, pair, choose, open, refused }) {
  const panel = byId("panel-compare"), mine = ++turn;
  const focused = panel.contains(document.activeElement) ? document.activeElement.dataset.side : null;
  const result = el("div", {}, empty("Comparing…", "Both versions are asked the same."));
  panel.replaceChildren(chooser(models, pair, choose), result);
  if (focused) panel.querySelector(`select[data-side="${focused}"]`)?.focus();
  try {
    const [left, right] = await Promise.all(pair.map((version) => recommend({ ...body, version, explain: false })));
    if (mine === turn) result.replaceChildren(...comparison(left, right, open));
  } catch (error) {
    if (mine !== turn) return;
    result.replaceChildren(empty("No comparison", error.message));
    refused(error);
  }
}

/** The versions to compare where nobody chose: the live one, and the canary or else the previous one. */
export function usual(models) {
  const live = models.live?.version ?? Object.values(models)[0]?.version;
  return live ? [live, models.canary?.version ?? models.previous?.version ?? live] : null;
}

/** Two selects over the versions of /info; `chosen`: [left, right]; `changed(left, right)` after a choice. */
function chooser(models, chosen, changed) {
  const select = (side) => {
    const known = new Map(Object.entries(models).map(([role, model]) => [model.version, `${role}: ${model.name ?? "model"} ${short(model.version)}`]));
    if (chosen[side] && !known.has(chosen[side])) known.set(chosen[side], short(chosen[side]));
    const made = el("select", { dataset: { side: side ? "right" : "left" } }, [...known].map(([version, text]) => el("option", { value: version }, text)));
    made.value = chosen[side];
    made.addEventListener("change", () => changed(...(side ? [chosen[0], made.value] : [made.value, chosen[1]])));
    return el("label", { class: "field" }, side ? "with" : "compare", " ", made);
  };
  return el("div", { class: "row" }, select(0), select(1));
}

/** Both lists, with marks on the right one, and a sentence about them. `open(item)`: what a click on a title does. */
function comparison(left, right, open) {
  const found = moves(left.items, right.items);
  const k = Math.max(left.items.length, right.items.length);
  const agreed = agreement(found, k);
  const figures = [["overlap@" + k, agreed.overlap.toFixed(2), agreed.text], ["mean shift", agreed.mean.toFixed(2), "places that an item in both lists moves"],
    ["moved up", found.up], ["moved down", found.down], ["new", found.added], ["gone", found.gone.length]];
  const gone = new Map(found.gone.map((item) => [item.item_id, { kind: "gone" }]));
  return [
    el("p", { class: "verdict" }, left.version === right.version
      ? "Both sides are the same version, so that the lists are the same unless chance has a part: this server holds no other one yet."
      : `From ${short(left.version)} to ${short(right.version)}: ${told(found)}; ${agreed.text}.`),
    el("dl", { class: "figures" }, figures.map(([name, value, note]) => el("div", { title: note }, el("dt", {}, name), el("dd", {}, String(value))))),
    el("div", { class: "pair" }, side(left, "left", (item) => gone.get(item.item_id), open), side(right, "right", (item) => found.of.get(item.item_id), open)),
  ];
}

function side(answer, name, markOf, open) {
  const rows = answer.items.map((item, place) => {
    const found = markOf(item);
    return el("li", { class: found && found.kind !== "same" ? `moved ${found.kind}` : "", dataset: { item: item.item_id } },
      el("span", { class: "place" }, String(place + 1), found?.kind === "gone" ? el("span", { class: "move gone" }, "gone") : mark(found)),
      el("span", {}, el("button", { type: "button", class: "title", title: cut(titleOf(item)), onclick: () => open(item) }, other(titleOf(item))),
        el("span", { class: "under" }, badge(item.source), other(item.item_id, { class: "id", title: cut(item.item_id) }))),
      el("span", { class: "value" }, hidden("value "), figure(item.score)),
      el("small", {}, Object.entries(item.tasks).map(([task, chance]) => `${task} ${percent(chance)}`).join(" · ")));
  });
  return el("section", { "aria-label": `version ${answer.version}`, dataset: { side: name } },
    el("h3", {}, other(answer.model), " ", el("code", { title: answer.version }, short(answer.version)),
      answer.flags.length ? [" ", el("span", { class: "badge warn", title: answer.flags.map(flag).join(" ") }, plural(answer.flags.length, "flag"))] : ""),
    rows.length ? el("ol", { class: "side" }, rows) : empty("No items", "This version has none for this question."));
}
