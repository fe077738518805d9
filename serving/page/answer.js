// What is said above a list: who answered, how long each stage took, and what could not be done as asked.

import { el, milliseconds, other, plural, short } from "./dom.js";
import { ARMS, RUNGS, flag, named } from "./words.js";

/** The line about an answer; `took`: milliseconds from the browser's side. */
export function summary(answer, took) {
  const [arm, meaning] = named(ARMS, answer.arm);
  return el("div", { class: "summary" },
    el("p", {}, el("strong", {}, plural(answer.items.length, "item")), " by ", other(answer.model),
      " ", el("code", { title: `version ${answer.version}` }, short(answer.version)),
      " ", el("span", { class: `badge ${answer.arm === "live" ? "" : "note"}`, title: meaning }, arm),
      answer.fallback && [" ", el("span", { class: "badge warn", title: `fallback: ${named(RUNGS, answer.fallback)}` }, `fallback: ${answer.fallback}`)]),
    stages(answer.explanation?.stages_ms ?? {}, took));
}

/** One bar, a part for each stage; the figures stand beside it. */
function stages(stages_ms, took) {
  const parts = Object.entries(stages_ms).filter(([, ms]) => Number.isFinite(ms));
  const whole = parts.reduce((sum, [, ms]) => sum + ms, 0);
  const drawn = parts.map(([name, ms], place) => {
    const part = el("span", { class: `stage s${place % 6}`, title: `${name}: ${milliseconds(ms)}` });
    part.style.flexGrow = String((100 * ms) / whole); // less than 1 in all would leave a gap
    return part;
  });
  const said = parts.map(([name, ms], place) => el("li", {}, el("i", { class: `s${place % 6}`, "aria-hidden": "true" }), `${name} ${milliseconds(ms)}`));
  return el("div", { class: "stages" },
    parts.length ? el("div", { class: "track", "aria-hidden": "true" }, drawn) : null,
    el("ul", { "aria-label": "time of each stage" }, said,
      el("li", { title: `${milliseconds(took)} as seen from this browser` }, parts.length ? `of ${milliseconds(whole)}` : milliseconds(took))));
}

/** Flags in words, the rung that filled up, and the ids that the model does not have. */
export function notices(answer) {
  const said = answer.flags.map((name) => el("li", { dataset: { flag: name } }, flag(name)));
  if (answer.fallback) said.push(el("li", {}, `Places were filled with ${RUNGS[answer.fallback] || answer.fallback}.`));
  if (answer.unknown_items.length) {
    const first = answer.unknown_items.slice(0, 5).map((id, place) => [place ? ", " : "", other(id)]);
    said.push(el("li", {}, "The model does not know ", first.flat(), answer.unknown_items.length > 5 ? ` and ${answer.unknown_items.length - 5} more.` : "."));
  }
  return said.length ? el("ul", { class: "notices", "aria-label": "About this answer" }, said) : null;
}
