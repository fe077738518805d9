// The form: what is asked, as the body of a request and as the address of the page.
// The address keeps it behind the #, which browsers do not send, so that user ids stay out of the logs of servers.

import { byId, el, short } from "./dom.js";

const RECENT = "recsys-recent-users", KEPT = 12;
const form = byId("ask");
const TEXTS = ["user", "items", "k", "version", "exclude", "categories", "region", "context"];

/** What is asked: {by, user, items, k, version, exclude, categories, region, context, at, seen}, all text but seen. */
export function asked() {
  const found = Object.fromEntries(TEXTS.map((name) => [name, form.elements[name].value.trim()]));
  return { ...found, by: form.elements.by.value, seen: form.elements.seen.checked, at: form.elements.at.value };
}

/** The body of POST /recommend, or null while nobody is asked for. Throws an Error of one sentence. */
export function query(ask) {
  const body = { k: Number(ask.k), explain: true, filter_seen: ask.seen };
  if (!Number.isInteger(body.k) || body.k < 1) throw new Error(`k is ${ask.k || "empty"}: give a whole number from 1.`);
  if (ask.by === "user" ? !ask.user : !ids(ask.items).length) return null;
  if (ask.by === "user") body.user_id = ask.user;
  else body.history = ids(ask.items);
  if (ids(ask.exclude).length) body.exclude = ids(ask.exclude);
  if (ids(ask.categories).length) body.categories = ids(ask.categories);
  if (ask.region) body.region = ask.region;
  if (ask.version) body.version = ask.version;
  if (ask.at) body.time_ms = new Date(ask.at).getTime();
  if (ask.context) body.context = context(ask.context);
  return body;
}

/** Ids between commas; one with a comma of its own stands in quotes, "a,b". */
export function ids(text) {
  const found = [...text.matchAll(/\s*"((?:[^"]|"")*)"\s*(?=,|$)|([^,]+)/g)];
  return found.map(([, quoted, plain]) => (quoted === undefined ? plain.trim() : quoted.replaceAll('""', '"'))).filter(Boolean);
}

const quoted = (id) => (/[",]|^\s|\s$/.test(id) ? `"${id.replaceAll('"', '""')}"` : id);

export function addItem(id) {
  form.elements.items.value = [...ids(form.elements.items.value), id].map(quoted).join(", ");
}

function context(text) {
  return Object.fromEntries(ids(text).map((pair) => {
    const cut = pair.indexOf("=");
    if (cut < 1) throw new Error(`Context has ${pair}: write feature=value, such as hour=12.`);
    return [pair.slice(0, cut).trim(), pair.slice(cut + 1).trim()];
  }));
}

/** The address of the page for what is asked and the view that is open. */
export function address(ask, more) {
  const told = new URLSearchParams();
  if (ask.by === "items") told.set("by", "items");
  const left = ask.by === "user" ? "items" : "user";
  for (const name of [...TEXTS, "at"]) if (ask[name] && name !== left && !(name === "k" && ask.k === "10")) told.set(name, ask[name]);
  if (!ask.seen) told.set("seen", "0");
  for (const [name, value] of Object.entries(more)) if (value) told.set(name, value);
  return "#" + told;
}

/** Put the address into the form; gives what the address says beside it. */
export function restore(hash) {
  const told = new URLSearchParams(hash.replace(/^#/, ""));
  form.elements.by.value = told.get("by") === "items" ? "items" : "user";
  setVersions(null, told.get("version") ?? "");
  for (const name of [...TEXTS, "at"]) form.elements[name].value = told.get(name) ?? (name === "k" ? "10" : "");
  form.elements.seen.checked = told.get("seen") !== "0";
  showWho();
  return { view: told.get("view"), left: told.get("left"), right: told.get("right") };
}

export function showWho() {
  for (const label of form.querySelectorAll("[data-by]")) label.hidden = label.dataset.by !== form.elements.by.value;
  const ask = asked();
  const set = ["exclude", "categories", "region", "context", "at"].filter((name) => ask[name]).length + !ask.seen;
  byId("set").hidden = !set;
  byId("set").textContent = set;
}

let versions = {}, offered = "";

/** `models`: {role: {version, ...}} of /info, or null to keep those known; `chosen` is offered even if not among them. */
export function setVersions(models, chosen = form.elements.version.value) {
  versions = models || versions;
  const choices = new Map(Object.entries(versions).map(([role, model]) => [model.version, `${role} ${short(model.version)}`]));
  if (chosen && !choices.has(chosen)) choices.set(chosen, short(chosen));
  const wanted = JSON.stringify([...choices, chosen]);
  if (wanted === offered) return; // an open list of choices would close
  offered = wanted;
  const options = [...choices].map(([version, text]) => el("option", { value: version }, text));
  form.elements.version.replaceChildren(el("option", { value: "" }, "server’s choice"), ...options);
  form.elements.version.value = chosen || "";
}

export function recent() {
  try {
    const kept = JSON.parse(localStorage.getItem(RECENT));
    return Array.isArray(kept) ? kept.filter((user) => typeof user === "string") : [];
  } catch {
    return []; // no storage here, or not ours
  }
}

export const remember = (user) => keep([user, ...recent().filter((each) => each !== user)].slice(0, KEPT));
export const unremember = (user) => keep(recent().filter((each) => each !== user));

function keep(users) {
  try {
    localStorage.setItem(RECENT, JSON.stringify(users));
  } catch {
    // the page works without
  }
  showRecent();
}

export function showRecent() {
  byId("recent").replaceChildren(...recent().map((user) => el("option", { value: user })));
}
