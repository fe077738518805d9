// The page: what is asked goes to the API, and what comes back is shown. Other modules draw; this one decides when.

import * as api from "./api.js";
import { notices, summary } from "./answer.js";
import { addItem, address, asked, query, recent, remember, restore, setVersions, showRecent, showWho, unremember } from "./ask.js";
import { candidatesView } from "./candidates.js";
import { showComparison, usual } from "./compare.js";
import { byId, el, empty, other, plural } from "./dom.js";
import { askToForget } from "./forget.js";
import { look, watchHealth } from "./health.js";
import { showHistory } from "./history.js";
import { focusItem, hideItem, showItem, showSimilar } from "./item.js";
import { listView, titleOf } from "./list.js";
import { moves, told } from "./moves.js";
import { openTab, view, watchTabs } from "./tabs.js";

let models = {}; // of /info, by role
let shown = null; // {ask, body, answer, took, found, said, fresh}: what the page shows
let pair = [null, null]; // versions to compare
let opened = null; // the item in the panel
let turn = 0; // of questions, so that a late answer does not replace a newer one

/** Ask what the form says and show it. `after`: {said, fresh}: what was just done, to be told with what moved. */
async function ask(after = null) {
  const mine = ++turn;
  const now = asked();
  let body;
  try {
    body = query(now);
  } catch (error) {
    return fail(error);
  }
  keepAddress(now);
  if (body === null) return nobody();
  byId("grid").classList.remove("nobody");
  busy(true);
  try {
    const began = performance.now();
    const answer = await api.recommend(body);
    if (mine !== turn) return;
    const found = after && shown ? moves(shown.answer.items, answer.items) : null;
    shown = { ask: now, body, answer, took: performance.now() - began, found, said: after?.said ?? null, fresh: after?.fresh ?? new Set() };
    byId("key").hidden = true;
    if (body.user_id !== undefined && after?.remember !== false) remember(body.user_id);
    succeed();
    draw();
  } catch (error) {
    if (mine === turn) fail(error);
  } finally {
    if (mine === turn) busy(false);
  }
}

function draw() {
  const { answer, found, said, body, fresh } = shown;
  const user = body.user_id ?? null;
  const model = Object.values(models).find((each) => each.version === answer.version);
  byId("said").replaceChildren(...(said ? [el("p", { class: "after" }, said, found ? `: ${told(found)}` : ".", found ? gone(found) ?? "." : "")] : []));
  byId("panel-list").replaceChildren(...[summary(answer, shown.took), notices(answer),
    listView({ answer, candidates: answer.explanation?.candidates ?? [], found, user, on: actions, opened: opened?.item_id })].filter(Boolean));
  byId("panel-candidates").replaceChildren(candidatesView(answer, open));
  byId("tab-candidates").textContent = `Candidates ${answer.explanation?.candidates.length ?? ""}`;
  showHistory({ entries: answer.explanation?.history ?? [], user, read: model?.max_history, fresh, open, forget: () => askToForget(user, () => forget(user)) });
  if (opened) open(opened, { focus: false });
  if (view() === "compare") compare();
}

const gone = (found) => (found?.gone.length ? [": ", found.gone.flatMap((item, place) => [place ? ", " : "", other(titleOf(item))]), "."].flat() : null);

const actions = {
  open: (item) => open(item),
  close: () => close(),
  add(item) {
    addItem(item.item_id);
    ask({ said: el("span", {}, "With ", other(titleOf(item)), " in the history"), fresh: new Set() });
  },
  async post(item, event) {
    const { user_id: user } = shown.body, { request_id: request } = shown.answer;
    busy(true);
    try {
      const accepted = await api.post(user, item.item_id, event, request);
      const stored = accepted.flags.length ? ", which only the journal has" : accepted.accepted ? "" : ", which was there before";
      await ask({ said: el("span", {}, `After a ${event} on `, other(titleOf(item)), stored), fresh: new Set([item.item_id]) });
    } catch (error) {
      fail(error);
    } finally {
      busy(false);
    }
  },
};

async function open(item, { focus = true } = {}) {
  const { answer, body } = shown;
  const model = Object.values(models).find((each) => each.version === answer.version);
  const panel = { answer, on: actions, user: body.user_id ?? null };
  opened = item;
  showItem({ item, value: model?.value, ...panel });
  for (const row of document.querySelectorAll("#panel-list tbody tr")) row.classList.toggle("opened", row.dataset.item === item.item_id);
  if (focus) focusItem();
  let found;
  try {
    found = await api.similar({ item_id: item.item_id, k: 6, version: answer.version });
  } catch (error) {
    found = error.status >= 500 ? "Similar items are not to be had from this server now." : error.message;
  }
  if (opened === item) showSimilar(found, panel);
}

function close() {
  const row = opened && document.querySelector(`#panel-list tr[data-item="${CSS.escape(opened.item_id)}"]`);
  opened = null;
  hideItem();
  row?.classList.remove("opened");
  (row?.querySelector(".title") ?? byId("main")).focus();
}

/** The comparison of what is shown; a choice of versions goes into the address, too. */
function compare() {
  if (!shown) return;
  if (!pair[0] || !pair[1]) pair = usual(models) ?? [shown.answer.version, shown.answer.version];
  const known = Object.keys(models).length ? models : { live: { version: shown.answer.version } };
  const choose = (...chosen) => {
    pair = chosen;
    keepAddress(shown.ask);
    compare();
  };
  showComparison({ body: shown.body, models: known, pair, choose, open, refused: needKey });
}

async function forget(user) {
  busy(true);
  try {
    const found = await api.forget(user);
    unremember(user);
    await ask({ said: el("span", {}, other(user), ` is forgotten, with ${plural(found.events, "recent event")}`), fresh: new Set(), remember: false });
  } catch (error) {
    fail(error);
  } finally {
    busy(false);
  }
}

/** What stands there before anybody is asked for: the users asked for before, a click away. */
function nobody() {
  shown = null;
  succeed();
  if (opened) close();
  byId("grid").classList.add("nobody");
  byId("said").replaceChildren();
  for (const name of ["list", "candidates", "compare"]) {
    const users = recent().map((user) => el("a", { href: address({ by: "user", user, seen: true }, {}) }, other(user)));
    const hint = empty("Whose list?", "Give a user, or the items of a history, and press Recommend.");
    if (users.length) hint.append(el("p", { class: "users" }, "Asked for before: ", users));
    byId(`panel-${name}`).replaceChildren(hint);
  }
}

function busy(is) {
  byId("grid").setAttribute("aria-busy", is);
}

function succeed() {
  byId("error").hidden = true;
  byId("grid").classList.remove("stale");
}

/** One sentence; what was shown before stays, greyed, so that nothing is taken for the answer to this question. */
function fail(error) {
  byId("error").textContent = error instanceof api.Refused || error.constructor === Error ? error.message : `The page made a mistake: ${error.message}.`;
  byId("error").hidden = false;
  byId("grid").classList.add("stale");
  busy(false);
  needKey(error);
}

function needKey(error) {
  if (!api.wantsKey(error)) return;
  byId("key").hidden = false;
  byId("key").elements.key.focus();
}

function keepAddress(now) {
  const [left, right] = view() === "compare" ? pair : [null, null];
  const next = address(now, { view: view() === "list" ? null : view(), left, right });
  if (next !== location.hash) history.pushState(null, "", next);
}

function start() {
  const told = restore(location.hash);
  pair = [told.left, told.right];
  openTab(told.view ?? "list");
  return ask();
}

function listen() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  byId("ask").addEventListener("input", showWho);
  byId("more").addEventListener("click", () => {
    byId("filters").hidden = !byId("filters").hidden;
    byId("more").setAttribute("aria-expanded", !byId("filters").hidden);
  });
  byId("key").addEventListener("submit", (event) => {
    event.preventDefault();
    api.setKey(byId("key").elements.key.value.trim());
    byId("key").elements.key.value = "";
    look({ again: true });
    ask();
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && opened && !byId("forget").open && close());
  addEventListener("popstate", start);
  watchTabs(() => {
    keepAddress(shown?.ask ?? asked());
    if (view() === "compare") compare();
  });
}

function onInfo(info) {
  models = info.models ?? {};
  const live = models.live;
  byId("model").replaceChildren(...(live?.name ? [other(live.name)] : []));
  setVersions(models);
  byId("ask").elements.context.placeholder = Object.entries(live?.context ?? {}).map(([name, values]) => `${name}=${values[0]}`).join(", ") || "none";
  byId("categories").replaceChildren(...Object.values(live?.category ?? {}).flat().slice(0, 500).map((value) => el("option", { value })));
}

listen();
showRecent();
watchHealth(onInfo, needKey).finally(start);
