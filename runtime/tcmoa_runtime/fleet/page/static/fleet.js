"use strict";
(() => {
  const element = (id) => document.getElementById(id);
  const POLL_MS = 1000, MAX_POLL_MS = 8000;
  const PICTURE_MS = 2000; // between two pictures of a pair that is in view
  const STALE_S = 8; // without an answer of Ray
  const MAX_REQUESTS = 4; // pictures that are requested at once
  const ORDER = ["failed", "lost", "waiting", "stalled", "pending", "starting", "stopping", "running", "ended"];
  const LEVELS = { failed: "bad", lost: "bad", waiting: "bad", stalled: "warning", pending: "warning",
    starting: "warning", stopping: "idle", running: "good", ended: "idle" };
  const cards = new Map(); // by name: the elements and the picture of each pair
  let pairs = [], chosen = null;

  const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const setLink = (node, url) => {
    if (!url) node.removeAttribute("href");
    else if (node.getAttribute("href") !== url) node.setAttribute("href", url);
  };

  function seconds(value) {
    if (value < 60) return `${Math.round(value)} s`;
    if (value < 3600) return `${Math.round(value / 60)} min`;
    if (value < 86400) return `${Math.round(value / 3600)} h`;
    return `${Math.round(value / 86400)} d`;
  }
  const age = (pair) => pair.age_ms === null || pair.frame_s === null ? pair.frame_s : pair.age_ms / 1000 + pair.frame_s;
  function ageText(pair) {
    const value = age(pair);
    if (value === null || pair.rate === null) return "";
    return value < 10 ? `${Math.round(value * 1000)} ms old` : `${seconds(value)} old`;
  }
  function reason(pair) {
    const again = pair.retry_s === null ? "" : `again in ${seconds(pair.retry_s)}`;
    if (pair.state === "waiting" || pair.state === "failed") return [again, pair.error].filter(Boolean).join(": ");
    return [pair.message, pair.error].filter(Boolean).join("; ");
  }
  // A page on loopback can be opened on its own machine only.
  const isLocal = (host) => ["localhost", "[::1]"].includes(host) || host.startsWith("127.");
  function pageLink(pair) {
    if (!pair.page) return null;
    const url = new URL(pair.page);
    if (!isLocal(url.hostname) || isLocal(location.hostname)) return pair.page;
    // One with a token listens on all addresses of its machine: this one, as Ray calls the node by an address on loopback.
    if (!url.searchParams.has("token")) return null;
    url.hostname = location.hostname;
    return url.href;
  }

  // Cards

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) cards.get(entry.target.dataset.name).isVisible = entry.isIntersecting;
  }, { rootMargin: "100px" });

  function makeCard(name) {
    const root = element("card").content.firstElementChild.cloneNode(true);
    root.dataset.name = name;
    const part = (selector) => root.querySelector(selector);
    const card = { root, isVisible: false, pictureAt: 0, isLoading: false, url: null, image: part("img"),
      view: part(".view"), name: part(".name"), state: part(".state"), rate: part(".rate"), age: part(".age"),
      node: part(".node"), title: part(".title"), figures: part(".figures"), reason: part(".reason"), noPicture: part(".no-picture") };
    setText(card.name, name);
    card.name.title = name;
    card.image.alt = `Fused frame of ${name}`;
    watcher.observe(root);
    cards.set(name, card);
    return card;
  }
  function showCard(pair) {
    const card = cards.get(pair.name) || makeCard(pair.name);
    const link = pageLink(pair);
    card.root.dataset.level = LEVELS[pair.state];
    card.root.dataset.state = pair.state;
    for (const part of [card.title, card.figures]) part.classList.toggle("good", LEVELS[pair.state] === "good");
    setText(card.state, pair.state);
    card.state.title = `${pair.state} for ${seconds(pair.state_s)}`;
    setText(card.rate, pair.rate === null ? "" : `${pair.rate.toFixed(1)}/s`);
    setText(card.age, ageText(pair));
    card.age.title = "Age of the newest frame, from the capture of its older input for live sources";
    setText(card.node, pair.node ? pair.node.host === "" ? pair.node.ip : `${pair.node.host}` : "");
    card.node.title = pair.node ? `${pair.node.host}, ${pair.node.ip}, process ${pair.pid}` : "";
    setText(card.reason, reason(pair));
    card.reason.title = card.reason.textContent;
    setText(card.noPicture, pair.state === "running" ? "" : pair.state);
    setLink(card.name, link);
    setLink(card.view, link);
    card.view.title = link ? `Open the live page of ${pair.name}`
      : pair.page ? `The live page is on ${pair.node.host} only: ${pair.page}` : "";
    return card;
  }

  // What is shown

  const SORTS = {
    state: (a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.place - b.place,
    name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
    node: (a, b) => nodeText(a).localeCompare(nodeText(b), undefined, { numeric: true }) || a.place - b.place,
    rate: (a, b) => (a.rate ?? -1) - (b.rate ?? -1) || a.place - b.place,
    age: (a, b) => (age(b) ?? 1e9) - (age(a) ?? 1e9) || a.place - b.place,
    file: (a, b) => a.place - b.place,
  };
  const nodeText = (pair) => pair.node ? `${pair.node.host} ${pair.node.ip}` : "";
  function arrange() {
    const words = element("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (pair) => {
      const text = [pair.name, pair.state, nodeText(pair), pair.error, pair.message].join(" ").toLowerCase();
      return (!chosen || pair.state === chosen) && words.every((word) => text.includes(word));
    };
    const shown = pairs.filter(matches).sort(SORTS[element("sort").value]);
    const names = new Set(shown.map((pair) => pair.name));
    for (const [name, card] of cards) if (!names.has(name)) card.root.remove();
    const main = element("pairs");
    shown.forEach((pair, place) => {
      const { root } = cards.get(pair.name);
      if (main.children[place] !== root) main.insertBefore(root, main.children[place] || null);
    });
    element("empty").hidden = shown.length > 0 || pairs.length === 0;
    const noun = pairs.length === 1 ? "pair" : "pairs";
    setText(element("shown"), shown.length === pairs.length ? `${pairs.length} ${noun}`
      : `${shown.length} of ${pairs.length} ${noun}`);
  }
  function showSummary(counts) {
    const summary = element("summary");
    const states = ORDER.filter((state) => counts[state]);
    for (const button of [...summary.children]) if (!states.includes(button.dataset.state)) button.remove();
    states.forEach((state, place) => {
      let button = summary.querySelector(`[data-state="${state}"]`);
      if (!button) {
        button = document.createElement("button");
        button.type = "button";
        button.dataset.state = state;
        button.dataset.level = LEVELS[state];
        button.title = `Show only pairs that are ${state}`;
        button.addEventListener("click", () => { chosen = chosen === state ? null : state; showSummary(counts); arrange(); });
      }
      if (summary.children[place] !== button) summary.insertBefore(button, summary.children[place] || null);
      setText(button, `${counts[state]} ${state}`);
      button.setAttribute("aria-pressed", String(chosen === state));
    });
    if (chosen && !counts[chosen]) { chosen = null; arrange(); }
  }
  function showFleet(fleet) {
    setText(element("fleet"), fleet.fleet);
    const bad = fleet.pairs.filter((pair) => LEVELS[pair.state] === "bad").length;
    document.title = `${bad ? `(${bad}) ` : ""}${fleet.fleet} - tcmoa fleet`;
    setText(element("file-error"), fleet.file_error ? `The file is not used: ${fleet.file_error}` : "");
    element("file-error").hidden = !fleet.file_error;
    pairs = fleet.pairs.map((pair, place) => ({ ...pair, place }));
    const names = new Set(pairs.map((pair) => pair.name));
    for (const [name, card] of cards) {
      if (names.has(name)) continue;
      watcher.unobserve(card.root);
      card.root.remove();
      if (card.url) URL.revokeObjectURL(card.url);
      cards.delete(name);
    }
    pairs.forEach(showCard);
    showSummary(fleet.counts);
    arrange();
  }

  // Requests

  const showConnection = (state, text) => {
    element("connection").dataset.state = state;
    setText(element("connection"), text);
  };
  let pollMs = POLL_MS;
  async function poll() {
    try {
      const response = await fetch("/api/fleet");
      const fleet = await response.json();
      if (!response.ok) throw new Error(fleet.error);
      showFleet(fleet);
      if (fleet.age_s > STALE_S) showConnection("lost", `Ray has not answered for ${seconds(fleet.age_s)}`);
      else showConnection("live", "live");
      pollMs = POLL_MS;
    } catch (error) {
      showConnection("lost", error instanceof TypeError ? "no connection to the supervisor" : error.message);
      pollMs = Math.min(MAX_POLL_MS, 2 * pollMs);
    }
    setTimeout(poll, document.hidden ? MAX_POLL_MS : pollMs);
  }

  let requests = 0;
  function requestPictures() {
    if (document.hidden || !element("pictures").checked) return;
    const now = performance.now();
    const due = pairs.filter((pair) => {
      const card = cards.get(pair.name);
      return pair.state === "running" && card.isVisible && card.root.isConnected && !card.isLoading
        && now - card.pictureAt >= PICTURE_MS;
    }).sort((a, b) => cards.get(a.name).pictureAt - cards.get(b.name).pictureAt);
    for (const pair of due.slice(0, MAX_REQUESTS - requests)) loadPicture(pair.name, cards.get(pair.name));
  }
  async function loadPicture(name, card) {
    requests += 1;
    card.isLoading = true;
    try {
      const width = Math.ceil(card.view.clientWidth * Math.min(2, devicePixelRatio)) || 320;
      const response = await fetch(`/api/pairs/${encodeURIComponent(name)}/picture.jpg?width=${Math.min(1920, width)}`);
      if (response.ok) {
        const url = URL.createObjectURL(await response.blob());
        card.image.src = url;
        card.image.hidden = false;
        if (card.url) URL.revokeObjectURL(card.url);
        card.url = url;
      }
    } catch { /* the next poll shows that there is no connection */ }
    card.pictureAt = performance.now();
    card.isLoading = false;
    requests -= 1;
  }

  // Choices, which the browser remembers

  const remember = (key, value) => { try { localStorage.setItem(`tcmoa-fleet-${key}`, value); } catch { /* private mode */ } };
  const recall = (key) => { try { return localStorage.getItem(`tcmoa-fleet-${key}`); } catch { return null; } };
  function applyView() {
    document.documentElement.style.setProperty("--size", `${element("size").value}rem`);
    document.body.classList.toggle("plain", !element("pictures").checked);
  }
  for (const id of ["sort", "size"]) {
    if (recall(id) !== null) element(id).value = recall(id);
    element(id).addEventListener("input", () => { remember(id, element(id).value); applyView(); arrange(); });
  }
  if (!element("sort").value) element("sort").value = "state";
  element("pictures").checked = recall("pictures") !== "false";
  element("pictures").addEventListener("change", () => { remember("pictures", element("pictures").checked); applyView(); });
  element("filter").addEventListener("input", arrange);
  element("tools").addEventListener("submit", (event) => event.preventDefault());
  const THEMES = ["system", "dark", "light"];
  function setTheme(theme) {
    if (theme === "system") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = theme;
    setText(element("theme"), `Theme: ${theme}`);
    remember("theme", theme);
  }
  let theme = THEMES.includes(recall("theme")) ? recall("theme") : "system";
  setTheme(theme);
  element("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    setTheme(theme);
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) requestPictures(); });

  applyView();
  poll();
  setInterval(requestPictures, 200);
})();
