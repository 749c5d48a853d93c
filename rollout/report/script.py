"""The page's only program: keeps decisions, and replaces the sections of a live page when the run has moved."""

SCRIPT = """
(() => {
  const live = document.body.dataset.live === "1", key = "ornith-reviews " + document.body.dataset.run;
  const byId = (id) => document.getElementById(id), reviewer = byId("reviewer"), saved = byId("saved");
  let mine = {};
  try { mine = JSON.parse(localStorage.getItem(key)) || {}; } catch (error) { mine = {}; }
  const keep = () => { try { localStorage.setItem(key, JSON.stringify(mine)); } catch (error) { /* not kept */ } };

  const paint = (form) => {
    const said = mine[form.dataset.trajectory];
    for (const button of form.querySelectorAll("button"))
      button.classList.toggle("on", !!said && said.decision === button.dataset.decision);
    if (saved) saved.textContent = Object.keys(mine).length + " decisions of yours";
  };
  const send = async (review) => {
    if (!live) return "kept in this browser; download your decisions above";
    try {
      const answer = await fetch("reviews", { method: "POST", headers: { "Content-Type": "application/json" },
                                              body: JSON.stringify(review) });
      return answer.ok ? "saved" : "not saved: " + await answer.text();
    } catch (error) { return "not saved: the server does not answer; kept in this browser"; }
  };
  for (const form of document.querySelectorAll(".decide")) {
    const note = form.querySelector("textarea"), state = form.querySelector(".state"), id = form.dataset.trajectory;
    if (mine[id]) note.value = mine[id].note;
    for (const button of form.querySelectorAll("button"))
      button.addEventListener("click", async () => {
        mine[id] = { trajectory: id, decision: button.dataset.decision, note: note.value,
                     reviewer: reviewer.value, time: Date.now() / 1000 };
        keep(); paint(form);
        state.textContent = await send(mine[id]);
      });
    paint(form);
  }
  if (reviewer) {
    try { reviewer.value = localStorage.getItem("ornith-reviewer") || ""; } catch (error) { /* asked again */ }
    reviewer.addEventListener("change", () => {
      try { localStorage.setItem("ornith-reviewer", reviewer.value); } catch (error) { /* asked again */ }
    });
    byId("download").addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([JSON.stringify(Object.values(mine), null, 1)]));
      link.download = "reviews.json";
      link.click();
    });
  }

  const replace = (fresh) => {
    const old = fresh.id ? byId(fresh.id) : document.querySelector(fresh.localName);
    if (!old) return;
    const open = [...old.querySelectorAll("details")].map((one) => one.open);
    old.replaceWith(document.adoptNode(fresh));
    [...fresh.querySelectorAll("details")].forEach((one, place) => { if (place in open) one.open = open[place]; });
  };
  let stamp = document.body.dataset.stamp;
  const look = async () => {
    try {
      const now = await (await fetch("stamp")).text();
      if (now === stamp) return;
      const page = new DOMParser().parseFromString(await (await fetch("./")).text(), "text/html");
      page.querySelectorAll("header, section:not(#review), #decisions").forEach(replace);
      stamp = now;
    } catch (error) { /* the server is away; the page stays as it is */ }
  };
  if (live) setInterval(look, 5000);
})();
"""
