(() => {
  "use strict";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const root = document.documentElement;

  // Light, dark, or what the system says; remembered where the browser allows it.
  const themes = ["auto", "light", "dark"];
  const toggle = document.getElementById("theme");
  const store = {
    get() { try { return localStorage.getItem("erase-theme"); } catch { return null; } },
    set(value) { try { localStorage.setItem("erase-theme", value); } catch { /* a page without storage forgets */ } },
  };
  const wear = (theme) => {
    root.dataset.theme = theme;
    toggle.textContent = `theme: ${theme}`;
  };
  wear(themes.includes(store.get()) ? store.get() : "auto");
  toggle.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
    wear(next);
    store.set(next);
  });

  // The slider of each pair.
  const slide = (pair, value) => {
    const input = pair.querySelector("input[type=range]");
    input.value = value;
    pair.style.setProperty("--at", input.value);
    input.setAttribute("aria-valuetext", `${input.value} % before, ${100 - input.value} % after`);
  };
  document.addEventListener("input", (event) => {
    const pair = event.target.closest(".pair");
    if (pair) slide(pair, event.target.value);
  });
  all(".block").forEach((block) => {
    const buttons = all("button[data-view]", block);
    buttons.forEach((button) => button.addEventListener("click", () => {
      block.dataset.view = button.dataset.view;
      buttons.forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
      const at = { before: 100, after: 0 }[button.dataset.view] ?? 50;
      all(".pair", block).forEach((pair) => slide(pair, at));
    }));
    block.querySelector("[data-unveil]")?.addEventListener("click", (event) => {
      all("[data-veiled]", block).forEach((one) => one.removeAttribute("data-veiled"));
      event.target.remove();
    });
  });

  // Images of unsafe tasks: each is shown when it is asked for.
  document.addEventListener("click", (event) => {
    const veil = event.target.closest(".veil");
    if (!veil) return;
    const held = veil.closest("[data-veiled]");
    held.removeAttribute("data-veiled");
    held.querySelector("input[type=range]")?.focus();
  });

  // A pair that a link leads to may lie in a closed part.
  const reveal = () => {
    const target = location.hash.startsWith("#pair-") && document.getElementById(location.hash.slice(1));
    const closed = target && target.closest("details:not([open])");
    if (closed) { closed.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", reveal);
  reveal();

  // The table of every image: found by words, sorted by any column.
  const table = document.getElementById("images-table");
  if (table) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, words: row.textContent.toLowerCase() }));
    const found = document.getElementById("found");
    document.getElementById("filter").addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      rows.forEach((one) => {
        one.row.hidden = !words.every((word) => one.words.includes(word));
        count += one.row.hidden ? 0 : 1;
      });
      found.textContent = `${count} images`;
    });
    all("thead button", table).forEach((button, column) => button.addEventListener("click", () => {
      const heading = button.closest("th");
      const down = heading.getAttribute("aria-sort") === "ascending";
      all("th", table).forEach((one) => one.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = ({ row }) => row.cells[column].textContent;
      const order = (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
      body.append(...[...rows].sort((a, b) => (down ? order(b, a) : order(a, b))).map((one) => one.row));
    }));
  }

  // Files that the page carries.
  const files = document.getElementById("files");
  all("[data-save]").forEach((button) => button.addEventListener("click", () => {
    const name = button.dataset.save;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.parse(files.textContent)[name]], { type: "text/plain" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }));
})();
