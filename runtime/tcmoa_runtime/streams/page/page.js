"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const HISTORY_SECONDS = 60, RETRY_FIRST = 500, RETRY_MOST = 8000;
  let about = null, grid = null, socket = null, retry = RETRY_FIRST, ended = false;

  // What is wrong is said in one place, and goes when something works again.
  const complain = (line) => { $("error").textContent = line || ""; };
  const link = (state, text) => { $("link").dataset.state = state; $("link").textContent = text; };

  async function call(method, path, body) {
    const answer = await fetch(path, {
      method, headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.error);
    return said;
  }

  // Changes go one at a time, and only the newest waits: dragging a slider floods nobody.
  const waiting = new Map();
  let busy = false, asking = false;
  function change(key, method, path, body) {
    waiting.delete(key);
    waiting.set(key, [method, path, body]);
    if (!busy) drain();
  }
  async function drain() {
    busy = true;
    while (waiting.size) {
      const [key, [method, path, body]] = waiting.entries().next().value;
      waiting.delete(key);
      asking = true;
      try {
        const state = await call(method, path, body);
        asking = false;
        show(state);
        complain("");
      } catch (error) { complain(error.message); }
      asking = false;
    }
    busy = false;
  }

  // Sliders with a number beside them.
  const ramp = () => Number($("ramp").value);
  const touched = new Map();
  function slider(id, changed) {
    const range = $(id), number = $(`${id}-number`);
    const set = (value) => {
      range.value = value;
      if ("value" in number && document.activeElement !== number) number.value = String(Math.round(value * 1000) / 1000);
    };
    const tell = (value) => { touched.set(id, performance.now()); changed(value); };
    range.addEventListener("input", () => { set(Number(range.value)); tell(Number(range.value)); });
    if (number.tagName === "INPUT") {
      number.addEventListener("change", () => {
        const value = Number(number.value);
        if (number.value === "" || !Number.isFinite(value)) { number.value = range.value; return; }
        range.value = value;
        tell(value);
      });
    }
    return { set, get: () => Number(number.tagName === "INPUT" ? number.value : range.value) };
  }
  const scale = slider("scale", (value) => change("scale", "POST", "/api/control", { scale: value, ramp: ramp() }));
  const shift = slider("shift", (value) => change("shift", "POST", "/api/control", { shift: value, ramp: ramp() }));
  slider("ramp", () => {});
  slider("size", () => {});
  slider("opacity", (value) => { $("prompt").style.opacity = value; });
  const innerScale = slider("inner-scale", () => sendRegion());
  const innerShift = slider("inner-shift", () => sendRegion());
  $("prompt").style.opacity = $("opacity").value;
  $("reset").addEventListener("click", () => {
    forgetRegion();
    change("reset", "POST", "/api/reset", { ramp: ramp() });
  });

  // What others set (keys, other browsers, programs) shows here too, unless a hand is on that slider.
  function show(state) {
    const held = (id) => performance.now() - (touched.get(id) || -1e9) < 1500;
    if (!held("scale")) scale.set(state.scale);
    if (!held("shift")) shift.set(state.shift);
    follow(state);
  }

  // The region: a share per token, painted, or a rectangle.
  const brush = $("brush");
  let tool = "none", mask = null, rectangle = null, from = null, inForce = null, newest = 0;
  function forgetRegion() { if (mask) mask.fill(0); rectangle = null; drawRegion(); }
  // The region in force is the one that is drawn, whoever set it; while a hand draws, a change is under way or news is
  // old, ours stays.
  function follow(state) {
    if (state.changes < newest) return;
    newest = state.changes;
    inForce = state.region;
    if (from || waiting.size || asking) return;
    const painted = mask.reduce((sum, share) => sum + share, 0);
    if (inForce && inForce.rectangle) {
      if (String(rectangle) !== String(inForce.rectangle)) { forgetRegion(); rectangle = inForce.rectangle; drawRegion(); }
    } else if ((rectangle || painted) && !(inForce && Math.abs(painted - inForce.tokens) < 0.01)) forgetRegion();
    const unseen = inForce && !inForce.rectangle && !mask.some((share) => share > 0);
    $("region-note").textContent = unseen ? `a region of ${inForce.tokens} tokens, painted elsewhere, is in force` : "";
  }
  function sendRegion() {
    const inside = { scale: innerScale.get(), shift: innerShift.get(), ramp: ramp() };
    let body = null;
    if (rectangle) body = { rectangle, ...inside };
    else if (mask && mask.some((share) => share > 0)) {
      const rows = [];
      for (let row = 0; row < grid[0]; row++) rows.push(Array.from(mask.subarray(row * grid[1], (row + 1) * grid[1])));
      body = { mask: rows, ...inside };
    }
    if (body) change("region", "PUT", "/api/region", body);
    else if (inForce) change("region", "DELETE", "/api/region", { ramp: ramp() });
  }
  function at(event) {
    const box = brush.getBoundingClientRect();
    const within = (value, most) => Math.min(Math.max(value, 0), most);
    return [within((event.clientX - box.left) / box.width, 1) * about.width,
      within((event.clientY - box.top) / box.height, 1) * about.height];
  }
  // All tokens near the straight way from where the pointer was: a fast hand leaves no gaps.
  function stroke(event) {
    const to = at(event), radius = Number($("size").value) / 2, value = tool === "erase" ? 0 : 1;
    const cell = [about.width / grid[1], about.height / grid[0]];
    const way = [to[0] - from[0], to[1] - from[1]], length = Math.hypot(...way);
    rectangle = null;
    for (let row = 0; row < grid[0]; row++) for (let col = 0; col < grid[1]; col++) {
      const off = [(col + .5) * cell[0] - from[0], (row + .5) * cell[1] - from[1]];
      const share = length ? Math.min(Math.max((off[0] * way[0] + off[1] * way[1]) / length ** 2, 0), 1) : 0;
      const near = Math.hypot(off[0] - share * way[0], off[1] - share * way[1]);
      if (near <= radius + Math.min(...cell) / 2) mask[row * grid[1] + col] = value;
    }
    from = to;
    drawRegion();
  }
  brush.addEventListener("pointerdown", (event) => {
    if (tool === "none" || !about) return;
    brush.setPointerCapture(event.pointerId);
    from = at(event);
    if (tool !== "rectangle") stroke(event);
  });
  brush.addEventListener("pointermove", (event) => {
    if (!from) return;
    if (tool !== "rectangle") { stroke(event); return; }
    const to = at(event);
    rectangle = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1])]
      .map((value) => Math.round(value));
    mask.fill(0);
    drawRegion();
  });
  const lift = () => {
    if (!from) return;
    from = null;
    if (rectangle && (rectangle[2] < 1 || rectangle[3] < 1)) rectangle = null;
    if (rectangle) {
      rectangle[0] = Math.min(rectangle[0], about.width - 1);
      rectangle[1] = Math.min(rectangle[1], about.height - 1);
    }
    drawRegion();
    sendRegion();
  };
  brush.addEventListener("pointerup", lift);
  brush.addEventListener("pointercancel", lift);
  function drawRegion() {
    const pen = brush.getContext("2d");
    pen.clearRect(0, 0, brush.width, brush.height);
    if (!grid) return;
    pen.fillStyle = "rgba(108, 178, 255, .25)";
    pen.strokeStyle = "#6cb2ff";
    pen.lineWidth = 2;
    if (rectangle) { pen.fillRect(...rectangle); pen.strokeRect(...rectangle); return; }
    const cell = [brush.width / grid[1], brush.height / grid[0]];
    mask.forEach((share, i) => {
      if (share <= 0) return;
      const [left, top, right, bottom] = [i % grid[1], Math.floor(i / grid[1]), i % grid[1] + 1, Math.floor(i / grid[1]) + 1]
        .map((place, axis) => Math.round(place * cell[axis % 2]));
      pen.fillRect(left, top, right - left, bottom - top);
    });
  }
  for (const button of document.querySelectorAll(".tool")) button.addEventListener("click", () => {
    tool = button.dataset.tool;
    brush.dataset.tool = tool;
    for (const other of document.querySelectorAll(".tool")) other.setAttribute("aria-pressed", String(other === button));
  });
  brush.dataset.tool = tool;
  $("clear").addEventListener("click", () => {
    forgetRegion();
    change("region", "DELETE", "/api/region", { ramp: ramp() });
  });

  // Pictures
  const VIEWS = ["fused", "x", "y"];
  function ask() {
    if (!socket || socket.readyState !== WebSocket.OPEN) return;
    const views = document.hidden ? [] : [...VIEWS, ...($("overlay").checked ? ["prompt"] : [])];
    const width = Math.max(64, Math.round($("stage").clientWidth * (window.devicePixelRatio || 1)));
    const moa = $("moa").value === "" ? null : Number($("moa").value);
    socket.send(JSON.stringify({ show: { views, width, moa } }));
  }
  document.addEventListener("visibilitychange", ask);
  $("overlay").addEventListener("change", () => { $("prompt").hidden = !$("overlay").checked; ask(); });
  $("moa").addEventListener("change", ask);
  new ResizeObserver(ask).observe($("stage"));

  async function draw(view, bytes) {
    const picture = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
    const canvas = $(view);
    if (canvas.width !== picture.width || canvas.height !== picture.height) {
      canvas.width = picture.width;
      canvas.height = picture.height;
    }
    canvas.getContext("2d").drawImage(picture, 0, 0);
    picture.close();
  }
  // Blue where y wins, nothing in the middle, red where x does: the further from 0.5, the denser.
  function drawPrompt(shares, size) {
    const canvas = $("prompt"), [rows, cols] = size;
    canvas.width = cols;
    canvas.height = rows;
    const pen = canvas.getContext("2d"), picture = pen.createImageData(cols, rows);
    for (let i = 0; i < shares.length; i++) {
      const lead = (shares[i] - 127.5) / 127.5;
      const density = 255 * Math.sqrt(Math.abs(lead)); // most leads are small
      picture.data.set(lead > 0 ? [255, 70, 50, density] : [60, 110, 255, density], 4 * i);
    }
    pen.putImageData(picture, 0, 0);
  }

  // Charts of the last minute
  const series = { latency: [], "age-x": [], "age-y": [], rate: [], drops: [] };
  function note(name, value) {
    if (value === null || value === undefined) return;
    const now = performance.now() / 1000, points = series[name];
    points.push([now, value]);
    while (points.length && (points[0][0] < now - HISTORY_SECONDS || points.length > 4000)) points.shift();
  }
  function chart(name, unit, digits) {
    const canvas = $(`chart-${name}`), points = series[name], ratio = window.devicePixelRatio || 1;
    const width = canvas.width = Math.round(canvas.clientWidth * ratio);
    const height = canvas.height = Math.round(canvas.clientHeight * ratio);
    const pen = canvas.getContext("2d"), now = performance.now() / 1000;
    const most = Math.max(...points.map((point) => point[1]), 1e-9) * 1.1;
    pen.strokeStyle = "#6cb2ff";
    pen.lineWidth = 1.5 * ratio;
    pen.beginPath();
    for (const [when, value] of points) {
      pen.lineTo(width * (1 - (now - when) / HISTORY_SECONDS), height * (1 - value / most) - ratio);
    }
    pen.stroke();
    if (points.length) {
      $(name).textContent = points[points.length - 1][1].toFixed(digits) + unit;
      pen.fillStyle = "#9aa0ad";
      pen.font = `${10 * ratio}px system-ui, sans-serif`;
      pen.fillText((most / 1.1).toFixed(digits) + unit, 4 * ratio, 12 * ratio);
    }
  }
  let before = null;
  function figures(said) {
    const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
    const dropped = sum(said.dropped);
    // What is thrown away at the very end comes at once and is no rate.
    if (before && said.seconds > before.seconds + 0.25) {
      note("drops", Math.max(0, dropped - before.dropped) / (said.seconds - before.seconds));
    }
    before = { dropped, seconds: said.seconds };
    note("rate", said.rate_now);
    chart("latency", " ms", 0); chart("age-x", " ms", 0); chart("age-y", " ms", 0);
    chart("rate", "", 1); chart("drops", "", 1);
    const rows = [["frames", said.frames]];
    for (const [what, p] of [["latency", said.latency_ms], ["skew", said.skew_ms]]) {
      if (p.p50 !== null) rows.push([`${what} p50 / p95 / p99`, `${[p.p50, p.p95, p.p99].map((v) => v.toFixed(1)).join(" / ")} ms`]);
    }
    for (const [name, count] of Object.entries(said.status)) if (name !== "fused") rows.push([name, count]);
    for (const [cause, count] of Object.entries(said.dropped)) rows.push([`let go: ${cause}`, count]);
    for (const [side, events] of Object.entries(said.sources)) {
      for (const [what, count] of Object.entries(events)) if (what !== "frames") rows.push([`${side}: ${what.replace("_", " ")}`, count]);
    }
    rows.push(["skipped by this browser", skipped]);
    $("counts").tBodies[0].replaceChildren(...rows.map((cells) => {
      const row = document.createElement("tr");
      for (const text of cells) row.insertCell().textContent = text;
      return row;
    }));
    show(said.control);
  }

  let skipped = 0;
  const LOSSES = { "held-x": "x is lost: its last frame is held", "held-y": "y is lost: its last frame is held",
    "passed-x": "y is lost: x alone", "passed-y": "x is lost: y alone" };
  async function take(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    let place = 4 + length;
    const frame = header.frame;
    if (frame) {
      const drawn = [];
      for (const [view, bytes] of header.parts) {
        const part = new Uint8Array(buffer, place, bytes);
        place += bytes;
        if (view === "prompt") drawPrompt(part, frame.grid);
        else drawn.push(draw(view, part).catch(() => complain(`a picture of ${view} could not be read`)));
      }
      await Promise.all(drawn);
      skipped += frame.skipped;
      note("latency", frame.latency_ms); note("age-x", frame.age_x_ms); note("age-y", frame.age_y_ms);
      $("status").textContent = frame.status;
      $("time").textContent = `${frame.time.toFixed(2)} s`;
      $("notice").textContent = LOSSES[frame.status] || "";
      $("notice").hidden = !(frame.status in LOSSES);
      document.body.dataset.frame = frame.index;
    }
    if (header.figures) figures(header.figures);
    if (header.ended) { ended = true; link("ended", "the stream has ended"); }
    socket.send(JSON.stringify({ ack: header.n }));
  }

  async function connect() {
    link("connecting", "connecting");
    try {
      const answer = await fetch("/api/state");
      const state = await answer.json();
      if (!answer.ok) { link("refused", state.error); return; }
      begin(state);
    } catch { again(); return; }
    socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
    socket.binaryType = "arraybuffer";
    let last = Promise.resolve();
    socket.onopen = () => { retry = RETRY_FIRST; link("live", "live"); ask(); };
    socket.onmessage = (message) => { last = last.then(() => take(message.data)).catch((error) => complain(error.message)); };
    socket.onclose = () => last.then(() => { if (!ended) again(); });
  }
  function again() {
    link("lost", "connection lost, trying again");
    setTimeout(connect, retry);
    retry = Math.min(2 * retry, RETRY_MOST);
  }
  function begin(state) {
    about = state.stream;
    grid = state.grid;
    if (!mask || mask.length !== grid[0] * grid[1]) mask = new Float32Array(grid[0] * grid[1]);
    brush.width = about.width;
    brush.height = about.height;
    $("stage").style.setProperty("--aspect", about.width / about.height);
    $("about").textContent = `${about.task}, ${about.width}x${about.height}, ${about.backend}`;
    $("name-x").textContent = `${about.roles.x}: ${about.x}`;
    $("name-y").textContent = `${about.roles.y}: ${about.y}`;
    $("towards").textContent = `${about.roles.y} to ${about.roles.x}`;
    $("moa").replaceChildren(new Option("mean of all", ""),
      ...Array.from({ length: about.prompts }, (_, k) => new Option(`TC-MoA ${k + 1}`, String(k))));
    for (const id of ["overlay", "moa", "opacity"]) $(id).disabled = !about.prompts;
    $("no-prompt").hidden = about.prompts > 0;
    scale.set(state.scale);
    shift.set(state.shift);
    $("ramp").value = state.ramp;
    $("ramp-number").value = state.ramp;
    if (state.region) { innerScale.set(state.region.scale); innerShift.set(state.region.shift); }
    newest = 0; // another stream may have begun to count anew
    follow(state);
    drawRegion();
  }
  connect();
})();
