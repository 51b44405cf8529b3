// Nothing here is needed. It reloads what is shown while the page is looked at, unless somebody is at it.
"use strict";
const every = 15000;
let touched = false;
document.addEventListener("input", () => { touched = true; });
setInterval(async () => {
  const busy = touched || document.hidden || document.querySelector("details[open], .fields :focus, pre:focus")
    || String(document.getSelection()) !== "";
  if (busy || !document.body || location.pathname.startsWith("/confirm")) return;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
    const shown = document.querySelector("main");
    if (fresh && shown && !shown.contains(document.activeElement)) shown.replaceWith(fresh);
  } catch { /* the program is away: what was shown stays */ }
}, every);
