// The second question before a user is forgotten, in the page itself.

import { byId, other } from "./dom.js";

/** Ask, and call `forget` if that is the answer. */
export function askToForget(user, forget) {
  const dialog = byId("forget");
  byId("forget-text").replaceChildren("Events of ", other(user), " that were posted here are deleted, and the history that the model ",
    "came with is no longer read. This cannot be taken back.");
  dialog.returnValue = "keep";
  dialog.onclose = () => dialog.returnValue === "forget" && forget();
  dialog.showModal();
}
