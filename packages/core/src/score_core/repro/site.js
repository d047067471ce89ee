"use strict";
(() => {
  const form = document.getElementById("filter");
  const lines = Array.from(document.querySelectorAll("table.values > tbody"), (element) => ({
    element,
    text: element.textContent.toLowerCase(),
    group: element.closest("details.group"),
    ...element.dataset,
  }));
  const groups = Array.from(document.querySelectorAll("details.group"));
  const selects = Array.from(form.querySelectorAll("select"));
  const search = form.elements.namedItem("text");
  const status = document.getElementById("status");
  const openBefore = new Map();
  let wasFiltered = false;

  const matches = (line, terms, except) =>
    selects.every((select) => select === except || !select.value || line[select.name] === select.value) &&
    terms.every((term) => line.text.includes(term));

  const apply = () => {
    const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const filtered = terms.length > 0 || selects.some((select) => select.value);
    if (filtered && !wasFiltered) groups.forEach((group) => openBefore.set(group, group.open));
    const shown = new Map(groups.map((group) => [group, [0, 0]]));
    let total = 0;
    for (const line of lines) {
      const hit = matches(line, terms);
      line.element.hidden = !hit;
      const counts = shown.get(line.group);
      counts[1] += 1;
      if (hit) {
        counts[0] += 1;
        total += 1;
      }
    }
    for (const [group, [hits, all]] of shown) {
      group.hidden = hits === 0;
      group.querySelector(".shown").textContent = hits < all ? `${hits} of ${all} shown` : "";
      if (filtered) group.open = hits > 0;
      else if (wasFiltered) group.open = openBefore.get(group);
      for (const article of group.querySelectorAll("article.run")) {
        article.hidden = !article.querySelector("tbody[data-metric]:not([hidden])");
      }
    }
    for (const paper of document.querySelectorAll("section.paper")) {
      paper.hidden = !paper.querySelector("details.group:not([hidden])");
      const runs = paper.querySelector("section.runs");
      if (!runs) continue;
      for (const article of runs.querySelectorAll("article.run")) {
        const line = document.getElementById(article.dataset.row);
        article.hidden = filtered && (!line || line.hidden);
      }
      runs.hidden = !runs.querySelector("article.run:not([hidden])");
    }
    for (const select of selects) {
      const open = lines.filter((line) => matches(line, terms, select));
      for (const option of select.options) {
        const count = option.value ? open.filter((line) => line[select.name] === option.value).length : open.length;
        option.textContent = `${option.dataset.text} (${count})`;
      }
    }
    document.getElementById("none").hidden = total > 0;
    status.textContent = `${total} of ${lines.length} values`;
    document.body.classList.toggle("filtered", filtered);
    wasFiltered = filtered;
  };

  const reset = () => {
    form.reset();
    search.focus();
  };

  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  document.getElementById("reset-none").addEventListener("click", reset);
  document.getElementById("open-all").addEventListener("click", () => groups.forEach((group) => (group.open = true)));
  document.getElementById("close-all").addEventListener("click", () => groups.forEach((group) => (group.open = false)));

  // Buttons that copy a command, made where a reader can see them: a page holds hundreds of commands.
  const addButton = (block) => {
    if (block.dataset.button) return;
    block.dataset.button = "yes";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy-button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(block.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(block);
        button.textContent = "Selected: copy with the keyboard";
      }
      setTimeout(() => (button.textContent = "Copy"), 2500);
    });
    block.after(button);
  };
  const addButtons = (details) => details.querySelectorAll(":scope > pre.copy").forEach(addButton);
  document.addEventListener("toggle", (event) => event.target.open && addButtons(event.target), true);
  document.querySelectorAll("details[open]").forEach(addButtons);

  // A link to a line that is filtered out or inside a closed part shows it.
  const reveal = () => {
    let target = null;
    try {
      target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    } catch {
      return; // an address that is not ours
    }
    if (!target) return;
    if (wasFiltered && target.closest("[hidden]")) {
      form.reset();
      apply();
    }
    for (let part = target.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);

  form.hidden = false;
  apply();
  if (location.hash) reveal();
})();
