"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const [metric, method, order, filter] = ["metric", "method", "order", "filter"].map(find);
  const articles = [...document.querySelectorAll("article.pair")];
  const rows = [...document.querySelectorAll("#pair-table tbody tr")];

  // Four significant digits, as in the tables.
  const numDecimals = (value) => {
    const whole = Math.trunc(Math.abs(value));
    return whole ? Math.max(0, 4 - String(whole).length) : 4;
  };
  const format = (value) => (value === null ? "-" : value.toFixed(numDecimals(value)));

  // ---- Pairs in the order of a metric of a method.
  function sortPairs() {
    const m = Number(metric.value), c = Number(method.value);
    const [name, higher] = data.metrics[m];
    const worstFirst = (a, b) => {
      const [va, vb] = [a, b].map((e) => data.values[e.dataset.pair][c][m]);
      if (va === null || vb === null) return (va === null) - (vb === null);
      return (higher ? va - vb : vb - va) * (order.value === "best" ? -1 : 1);
    };
    const byIndex = (a, b) => a.dataset.pair - b.dataset.pair;
    const sorted = [...articles].sort(order.value === "name" ? byIndex : (a, b) => worstFirst(a, b) || byIndex(a, b));
    find("pairs").append(...sorted);
    for (const label of document.querySelectorAll(".metric-name")) label.textContent = name;
    for (const article of articles)
      for (const value of article.querySelectorAll(".value"))
        value.textContent = format(data.values[article.dataset.pair][value.dataset.method][m]);
    for (const row of rows)
      [...row.querySelectorAll("td")].forEach((cell, i) => {
        const value = data.values[row.dataset.pair][i][m];
        cell.textContent = format(value);
        if (value === null) delete cell.dataset.value; else cell.dataset.value = value;
      });
    filterPairs();
  }

  function filterPairs() {
    const part = filter.value.trim().toLowerCase();
    let numShown = 0;
    for (const element of [...articles, ...rows]) {
      element.hidden = !data.pairs[element.dataset.pair].toLowerCase().includes(part);
      if (!element.hidden && element.matches("article")) numShown++;
    }
    find("count").textContent = `${numShown} of ${articles.length} pairs`;
  }

  for (const control of [metric, method, order]) control.addEventListener("change", sortPairs);
  filter.addEventListener("input", filterPairs);

  // ---- Tables: a click on a header sorts, ascending first.
  for (const head of document.querySelectorAll(".sortable thead th")) {
    head.tabIndex = 0;
    const sort = () => {
      const table = head.closest("table"), body = table.tBodies[0];
      const isAscending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[head.cellIndex];
        if (head.cellIndex === 0) return cell.textContent.toLowerCase();
        return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
      };
      const compare = (a, b) => {
        const [ka, kb] = [key(a), key(b)];
        if (ka === null || kb === null) return (ka === null) - (kb === null);
        return (ka < kb ? -1 : ka > kb ? 1 : 0) * (isAscending ? 1 : -1);
      };
      body.append(...[...body.rows].sort(compare));
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter") sort();
    });
  }

  // ---- Viewer: one large picture, the others of its pair with the arrow keys.
  const viewer = find("viewer"), picture = find("picture"), caption = find("caption"), stage = find("stage");
  let links = [], current = 0, previous = 0, article = null;

  function show(index, keepPrevious = false) {
    if (!keepPrevious && index !== current) previous = current;
    current = (index + links.length) % links.length;
    const link = links[current];
    const value = link.closest(".column").querySelector(".value");
    const hasValue = value && link.dataset.group === "image";
    const score = hasValue ? `, ${data.metrics[metric.value][0]} ${value.textContent}` : "";
    picture.src = link.href;
    const name = data.pairs[article.dataset.pair];
    caption.textContent = `${name}: ${link.dataset.title}${score} (${current + 1} of ${links.length})`;
    for (const next of [current + 1, current - 1]) new Image().src = links[(next + links.length) % links.length].href;
  }

  const linksOf = (pair, group) => [...pair.querySelectorAll(`a.picture[data-group="${group}"]`)];

  function open(link) {
    article = link.closest("article");
    links = linksOf(article, link.dataset.group);
    previous = current = links.indexOf(link);
    show(current, true);
    if (!viewer.open) viewer.showModal();
  }

  function showOtherPair(step) {
    const { group, title } = links[current].dataset;
    let next = article;
    do next = step > 0 ? next.nextElementSibling : next.previousElementSibling;
    while (next && (next.hidden || !linksOf(next, group).length));
    if (!next) return;
    const others = linksOf(next, group);
    open(others.find((link) => link.dataset.title === title) || others[0]);
  }

  function zoom() {
    const [x, y] = [stage.scrollLeft, stage.scrollTop];
    picture.classList.toggle("zoomed");
    stage.scrollTo(x, y);
  }

  const keys = {
    ArrowRight: () => show(current + 1), ArrowLeft: () => show(current - 1), ArrowDown: () => showOtherPair(1),
    ArrowUp: () => showOtherPair(-1), " ": () => show(previous), z: zoom,
  };
  viewer.addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  picture.addEventListener("click", zoom);
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

  sortPairs();
})();
