// What the model knows of the asker: the history that was read, newest first.

import { ago, el, empty, iso, moment, other, plural } from "./dom.js";
import { cut, titleOf } from "./list.js";

/**
 * Fill the panel. `entries`: oldest first, as the API tells them; `user`: null where a list of items asked;
 * `read`: how many of them the model reads, where that is known; `fresh`: ids of items just posted.
 */
export function showHistory({ entries, user, read, fresh, open, forget }) {
  const [body, foot, count] = ["history-body", "history-foot", "history-count"].map((id) => document.getElementById(id));
  const all = plural(entries.length, "entry", "entries");
  count.textContent = !entries.length ? "" : read && read < entries.length ? `${entries.length}, newest ${read} read` : all;
  const newest = [...entries].reverse();
  const list = el("ol", { class: "entries" }, newest.map((entry, place) => entryOf(entry, place, { user, read, fresh, open })));
  const none = user === null ? "None of these items is known to the model." : "Nothing is known of this user. Post an event on an item, and it stands here.";
  body.replaceChildren(entries.length ? list : empty("Nothing yet", none));
  foot.replaceChildren();
  if (user !== null) foot.append(el("button", { type: "button", class: "plain", id: "forget-open", onclick: forget }, "Forget this user…"));
}

function entryOf(entry, place, { user, read, fresh, open }) {
  const live = entry.live && user !== null;
  const flash = fresh.size && live && place === 0 && fresh.has(entry.item_id);
  const unread = read && place >= read;
  return el("li", { class: `${live ? "live" : ""} ${flash ? "fresh" : ""} ${unread ? "unread" : ""}`, dataset: { item: entry.item_id } },
    el("button", { type: "button", class: "title", title: cut(titleOf(entry)), onclick: () => open({ ...entry, tasks: {} }) }, other(titleOf(entry))),
    el("span", { class: "under" },
      live && el("span", { class: "badge live", title: "posted to this server, after the model was made" }, "live"),
      other(entry.item_id, { class: "id", title: cut(entry.item_id) }),
      entry.time_ms !== null && user !== null && el("time", { datetime: iso(entry.time_ms), title: moment(entry.time_ms) }, ago(entry.time_ms))));
}
