"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const find = (id) => document.getElementById(id);
  const [metric, contestant, order, filter] = ["metric", "contestant", "order", "filter"].map(find);
  const articles = [...document.querySelectorAll("article.pair")];
  const rows = [...document.querySelectorAll("#by-image tbody tr")];

  const digits = (value) => {
    const whole = Math.trunc(Math.abs(value));
    return whole ? Math.max(0, 4 - String(whole).length) : 4;
  };
  const text = (value) => (value === null ? "-" : value.toFixed(digits(value)));

  // ---- which metric, whose, in which order
  function arrange() {
    const m = Number(metric.value), c = Number(contestant.value);
    const [name, higher] = figures.metrics[m];
    const worstFirst = (a, b) => {
      const [va, vb] = [a, b].map((e) => figures.values[e.dataset.pair][c][m]);
      if (va === null || vb === null) return (va === null) - (vb === null);
      return (higher ? va - vb : vb - va) * (order.value === "best" ? -1 : 1);
    };
    const byPlace = (a, b) => a.dataset.pair - b.dataset.pair;
    const sorted = [...articles].sort(order.value === "name" ? byPlace : (a, b) => worstFirst(a, b) || byPlace(a, b));
    find("pairs").append(...sorted);
    for (const label of document.querySelectorAll(".metric-name")) label.textContent = name;
    for (const article of articles)
      for (const value of article.querySelectorAll(".value"))
        value.textContent = text(figures.values[article.dataset.pair][value.dataset.contestant][m]);
    for (const row of rows)
      [...row.querySelectorAll("td")].forEach((cell, i) => {
        const value = figures.values[row.dataset.pair][i][m];
        cell.textContent = text(value);
        if (value === null) delete cell.dataset.value; else cell.dataset.value = value;
      });
    sift();
  }

  function sift() {
    const wanted = filter.value.trim().toLowerCase();
    let seen = 0;
    for (const element of [...articles, ...rows]) {
      element.hidden = !figures.pairs[element.dataset.pair].toLowerCase().includes(wanted);
      if (!element.hidden && element.matches("article")) seen++;
    }
    find("count").textContent = `${seen} of ${articles.length} pairs`;
  }

  for (const control of [metric, contestant, order]) control.addEventListener("change", arrange);
  filter.addEventListener("input", sift);

  // ---- tables sorted by a click on a header: ascending, then descending
  for (const head of document.querySelectorAll(".sortable thead th")) {
    head.tabIndex = 0;
    const sort = () => {
      const table = head.closest("table"), body = table.tBodies[0];
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[head.cellIndex];
        if (head.cellIndex === 0) return cell.textContent.toLowerCase();
        return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
      };
      const compare = (a, b) => {
        const [ka, kb] = [key(a), key(b)];
        if (ka === null || kb === null) return (ka === null) - (kb === null);
        return (ka < kb ? -1 : ka > kb ? 1 : 0) * (up ? 1 : -1);
      };
      body.append(...[...body.rows].sort(compare));
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter") sort();
    });
  }

  // ---- one picture large, the others of its pair behind the arrow keys
  const viewer = find("viewer"), shown = find("shown"), told = find("told"), stage = find("stage");
  let pictures = [], at = 0, before = 0, article = null;

  function show(place, keep = false) {
    if (!keep && place !== at) before = at;
    at = (place + pictures.length) % pictures.length;
    const link = pictures[at], pair = article.dataset.pair;
    const value = link.closest(".column").querySelector(".value");
    const figure = value && link.dataset.group === "image" ? `, ${figures.metrics[metric.value][0]} ${value.textContent}` : "";
    shown.src = link.href;
    told.textContent = `${figures.pairs[pair]}: ${link.dataset.what}${figure} (${at + 1} of ${pictures.length})`;
    for (const next of [at + 1, at - 1]) new Image().src = pictures[(next + pictures.length) % pictures.length].href;
  }

  function open(link) {
    article = link.closest("article");
    pictures = [...article.querySelectorAll(`a.picture[data-group="${link.dataset.group}"]`)];
    before = at = pictures.indexOf(link);
    show(at, true);
    if (!viewer.open) viewer.showModal();
  }

  function otherPair(step) {
    const group = pictures[at].dataset.group, what = pictures[at].dataset.what;
    let next = article;
    do next = step > 0 ? next.nextElementSibling : next.previousElementSibling;
    while (next && (next.hidden || !next.querySelector(`a.picture[data-group="${group}"]`)));
    if (!next) return;
    const links = [...next.querySelectorAll(`a.picture[data-group="${group}"]`)];
    open(links.find((link) => link.dataset.what === what) || links[0]);
  }

  function zoom() {
    const [x, y] = [stage.scrollLeft, stage.scrollTop];
    shown.classList.toggle("zoomed");
    stage.scrollTo(x, y);
  }

  const keys = {
    ArrowRight: () => show(at + 1), ArrowLeft: () => show(at - 1), ArrowDown: () => otherPair(1),
    ArrowUp: () => otherPair(-1), " ": () => show(before), z: zoom,
  };
  viewer.addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  shown.addEventListener("click", zoom);
  viewer.addEventListener("click", (event) => {
    if (event.target === stage) viewer.close();
  });
  viewer.addEventListener("close", () => article.scrollIntoView({ block: "nearest" }));
  find("pairs").addEventListener("click", (event) => {
    const link = event.target.closest("a.picture");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(link);
  });

  arrange();
})();
