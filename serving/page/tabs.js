// Three views in tabs, with arrow keys as the pattern of ARIA has them.

import { byId } from "./dom.js";

const VIEWS = ["list", "candidates", "compare"];
let chosen = "list";

export const view = () => chosen;

/** Show one view; one that does not exist is the list. */
export function openTab(name) {
  chosen = VIEWS.includes(name) ? name : "list";
  byId("said").hidden = chosen === "compare"; // it tells of the list
  for (const each of VIEWS) {
    const tab = byId(`tab-${each}`);
    tab.setAttribute("aria-selected", each === chosen);
    tab.tabIndex = each === chosen ? 0 : -1;
    byId(`panel-${each}`).hidden = each !== chosen;
  }
}

export function watchTabs(changed) {
  const turn = { ArrowRight: 1, ArrowLeft: -1 };
  for (const [place, name] of VIEWS.entries()) {
    const tab = byId(`tab-${name}`);
    tab.addEventListener("click", () => {
      openTab(name);
      changed();
    });
    tab.addEventListener("keydown", (event) => {
      const next = (place + turn[event.key] + VIEWS.length) % VIEWS.length;
      const to = { Home: 0, End: VIEWS.length - 1 }[event.key] ?? next;
      if (Number.isNaN(to)) return; // another key
      event.preventDefault();
      byId(`tab-${VIEWS[to]}`).focus();
      byId(`tab-${VIEWS[to]}`).click();
    });
  }
}
