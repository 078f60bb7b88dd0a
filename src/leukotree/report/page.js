"use strict";
(() => {
  // Sort a table by a column: up, down, then as it was. Cells without a value stay last.
  const letters = new Intl.Collator(undefined, { numeric: true });
  const valueOf = (row, column, number) => {
    const cell = row.cells[column];
    return number ? (cell.dataset.value === undefined ? null : Number(cell.dataset.value)) : cell.textContent.trim();
  };
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0], original = [...body.rows];
    if (original.length < 2) continue;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "sort by this column";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const now = before === "ascending" ? "descending" : before === "descending" ? null : "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        const sign = now === "descending" ? -1 : 1;
        const number = original.some((row) => row.cells[column].dataset.value !== undefined);
        const missing = (value) => value === null || value === "" || value === "–";
        const rows = now === null ? original : [...original].sort((a, b) => {
          const [x, y] = [valueOf(a, column, number), valueOf(b, column, number)];
          if (missing(x) || missing(y)) return missing(x) - missing(y);
          return sign * (number ? x - y : letters.compare(x, y));
        });
        if (now !== null) head.setAttribute("aria-sort", now);
        body.append(...rows);
      });
    });
  }
  // What is wider than its place says that it can be moved.
  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      target.parentElement.classList.toggle("wide", target.scrollWidth > target.clientWidth + 1);
    }
  });
  for (const place of document.querySelectorAll(".scroll")) watch.observe(place);
  // A link into a folded part opens it.
  const open = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    let part = id && document.getElementById(id);
    if (!part) return;
    for (let at = part; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    part.scrollIntoView();
  };
  addEventListener("hashchange", open);
  document.querySelectorAll("nav a").forEach((link) => link.addEventListener("click", () => setTimeout(open)));
  open();
  const parts = [...document.querySelectorAll("details")];
  const all = document.getElementById("all");
  all.hidden = false;
  all.addEventListener("click", () => {
    const close = parts.every((part) => part.open);
    parts.forEach((part) => { part.open = !close; });
    all.textContent = close ? "Open all" : "Close all";
  });
  // Paper shows everything.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = parts.filter((part) => !part.open);
    closed.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));
})();
