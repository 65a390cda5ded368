"use strict";
(() => {
  const element = (id) => document.getElementById(id);
  const MIN_RETRY_MS = 500, MAX_RETRY_MS = 8000;
  const HOLD_MS = 1500; // a slider keeps the user's value this long before it follows the server again
  let stream = null, socket = null, retryMs = MIN_RETRY_MS, ended = false;

  const showError = (message) => { element("error").textContent = message || ""; };
  const showConnection = (state, text) => {
    element("connection").dataset.state = state;
    element("connection").textContent = text;
  };

  // Requests

  async function request(method, path, body) {
    const response = await fetch(path, {
      method, headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const result = await response.json();
    if (!response.ok) throw new Error(result.error);
    return result;
  }

  // One request at a time; of each kind only the newest one is queued, so that a moving slider does not flood the
  // server.
  const queue = new Map();
  let isSending = false, isWaiting = false;
  function enqueue(kind, method, path, body) {
    queue.delete(kind);
    queue.set(kind, [method, path, body]);
    if (!isSending) sendQueue();
  }
  async function sendQueue() {
    isSending = true;
    while (queue.size) {
      const [kind, [method, path, body]] = queue.entries().next().value;
      queue.delete(kind);
      isWaiting = true;
      try {
        const state = await request(method, path, body);
        isWaiting = false;
        showState(state);
        showError("");
      } catch (error) { showError(error.message); }
      isWaiting = false;
    }
    isSending = false;
  }

  // Sliders, each with a number beside it

  const ramp = () => Number(element("ramp").value);
  const changeTimes = new Map();
  function makeSlider(id, onChange) {
    const range = element(id), number = element(`${id}-number`);
    const set = (value) => {
      range.value = value;
      if ("value" in number && document.activeElement !== number) number.value = String(Math.round(value * 1000) / 1000);
    };
    const change = (value) => { changeTimes.set(id, performance.now()); onChange(value); };
    range.addEventListener("input", () => { set(Number(range.value)); change(Number(range.value)); });
    if (number.tagName === "INPUT") {
      number.addEventListener("change", () => {
        const value = Number(number.value);
        if (number.value === "" || !Number.isFinite(value)) { number.value = range.value; return; }
        range.value = value;
        change(value);
      });
    }
    return { set, get: () => Number(number.tagName === "INPUT" ? number.value : range.value) };
  }
  const scale = makeSlider("scale", (value) => enqueue("scale", "POST", "/api/control", { scale: value, ramp: ramp() }));
  const shift = makeSlider("shift", (value) => enqueue("shift", "POST", "/api/control", { shift: value, ramp: ramp() }));
  makeSlider("ramp", () => {});
  const brushSize = makeSlider("brush-size", () => {});
  makeSlider("opacity", (value) => { element("prompt").style.opacity = value; });
  const innerScale = makeSlider("inner-scale", () => sendRegion());
  const innerShift = makeSlider("inner-shift", () => sendRegion());
  element("prompt").style.opacity = element("opacity").value;
  element("reset").addEventListener("click", () => {
    editor.clear();
    enqueue("reset", "POST", "/api/reset", { ramp: ramp() });
  });

  // Show what the keyboard, other browsers and programs have set, except on a slider that the user has just moved.
  function showState(state) {
    const isHeld = (id) => performance.now() - (changeTimes.get(id) || -Infinity) < HOLD_MS;
    if (!isHeld("scale")) scale.set(state.scale);
    if (!isHeld("shift")) shift.set(state.shift);
    showRegion(state);
  }

  // Region

  const editor = new RegionEditor(element("region"), () => brushSize.get(), () => sendRegion());
  let serverRegion = null, lastChangeCount = 0;
  function sendRegion() {
    const shape = editor.shape;
    if (shape) {
      const inside = { scale: innerScale.get(), shift: innerShift.get(), ramp: ramp() };
      enqueue("region", "PUT", "/api/region", { ...shape, ...inside });
    } else if (serverRegion) enqueue("region", "DELETE", "/api/region", { ramp: ramp() });
  }
  // Draw the server's region, unless the user is drawing, a request is under way, or the state is older than one that
  // was already shown. The server does not send masks, so a painted region of another browser is only mentioned.
  function showRegion(state) {
    if (state.change_count < lastChangeCount) return;
    lastChangeCount = state.change_count;
    serverRegion = state.region;
    if (editor.isDrawing || queue.size || isWaiting) return;
    if (serverRegion && serverRegion.rectangle) editor.showRectangle(serverRegion.rectangle);
    else {
      const isOurs = serverRegion && Math.abs(editor.paintedTokens - serverRegion.token_count) < 0.01;
      if (editor.shape && (editor.rectangle || !isOurs)) editor.clear();
    }
    const isUnknown = serverRegion && !serverRegion.rectangle && !editor.shape;
    element("region-note").textContent =
      isUnknown ? `A region of ${serverRegion.token_count} tokens, painted by another client, is active.` : "";
  }
  const toolButtons = document.querySelectorAll(".tool");
  for (const button of toolButtons) button.addEventListener("click", () => {
    editor.selectTool(button.dataset.tool);
    for (const other of toolButtons) other.setAttribute("aria-pressed", String(other === button));
  });
  element("clear-region").addEventListener("click", () => {
    editor.clear();
    enqueue("region", "DELETE", "/api/region", { ramp: ramp() });
  });

  // Images

  const IMAGES = ["fused", "x", "y"];
  function requestViews() {
    if (!socket || socket.readyState !== WebSocket.OPEN) return;
    const views = document.hidden ? [] : [...IMAGES, ...(element("overlay").checked ? ["prompt"] : [])];
    const width = Math.max(64, Math.round(element("stage").clientWidth * (window.devicePixelRatio || 1)));
    const tcMoa = element("tc-moa").value === "" ? null : Number(element("tc-moa").value);
    socket.send(JSON.stringify({ show: { views, width, tc_moa: tcMoa } }));
  }
  document.addEventListener("visibilitychange", requestViews);
  element("overlay").addEventListener("change", () => {
    element("prompt").hidden = !element("overlay").checked;
    requestViews();
  });
  element("tc-moa").addEventListener("change", requestViews);
  new ResizeObserver(requestViews).observe(element("stage"));

  async function drawImage(name, bytes) {
    const image = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
    const canvas = element(name);
    if (canvas.width !== image.width || canvas.height !== image.height) {
      canvas.width = image.width;
      canvas.height = image.height;
    }
    canvas.getContext("2d").drawImage(image, 0, 0);
    image.close();
  }
  // Red where x dominates, blue where y does, transparent where both weigh the same. The bytes are the weight of x.
  function drawPrompt(weights, [rows, columns]) {
    const canvas = element("prompt");
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
    for (let i = 0; i < weights.length; i++) {
      const lead = (weights[i] - 127.5) / 127.5;
      const alpha = 255 * Math.sqrt(Math.abs(lead)); // the root, because most leads are small
      image.data.set(lead > 0 ? [255, 70, 50, alpha] : [60, 110, 255, alpha], 4 * i);
    }
    context.putImageData(image, 0, 0);
  }

  // Statistics

  const charts = {
    latency: new Chart("latency", " ms", 0), ageX: new Chart("age-x", " ms", 0), ageY: new Chart("age-y", " ms", 0),
    rate: new Chart("rate", "", 1), dropped: new Chart("dropped", "", 1),
  };
  let previousDropped = null, skipped = 0;
  function showStats(stats) {
    const dropped = Object.values(stats.dropped).reduce((sum, count) => sum + count, 0);
    // The last message follows at once; the frames dropped at the end would look like a high rate.
    if (previousDropped && stats.seconds > previousDropped.seconds + 0.25) {
      const change = Math.max(0, dropped - previousDropped.count);
      charts.dropped.add(change / (stats.seconds - previousDropped.seconds));
    }
    previousDropped = { count: dropped, seconds: stats.seconds };
    charts.rate.add(stats.rate_now);
    for (const chart of Object.values(charts)) chart.draw();
    const rows = [["frames", stats.frames]];
    for (const [name, percentiles] of [["latency", stats.latency_ms], ["time between x and y", stats.skew_ms]]) {
      if (percentiles.p50 === null) continue;
      const values = [percentiles.p50, percentiles.p95, percentiles.p99].map((value) => value.toFixed(1));
      rows.push([`${name} p50 / p95 / p99`, `${values.join(" / ")} ms`]);
    }
    for (const [status, count] of Object.entries(stats.status)) if (status !== "fused") rows.push([status, count]);
    for (const [cause, count] of Object.entries(stats.dropped)) rows.push([`dropped: ${cause}`, count]);
    for (const [side, events] of Object.entries(stats.sources)) {
      for (const [event, count] of Object.entries(events)) {
        if (event !== "frames") rows.push([`${side}: ${event.replace("_", " ")}`, count]);
      }
    }
    rows.push(["skipped by this browser", skipped]);
    element("stats").tBodies[0].replaceChildren(...rows.map((cells) => {
      const row = document.createElement("tr");
      for (const text of cells) row.insertCell().textContent = text;
      return row;
    }));
    showState(stats.control);
  }

  // Connection

  const NOTICES = {
    "held-x": "x is lost; its last frame is used", "held-y": "y is lost; its last frame is used",
    "passed-x": "y is lost; only x is shown", "passed-y": "x is lost; only y is shown",
  };
  async function handleMessage(buffer) {
    const headerLength = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, headerLength)));
    const frame = header.frame;
    if (frame) {
      let position = 4 + headerLength;
      const drawing = [];
      for (const [name, length] of header.parts) {
        const part = new Uint8Array(buffer, position, length);
        position += length;
        if (name === "prompt") drawPrompt(part, frame.grid);
        else drawing.push(drawImage(name, part).catch(() => showError(`An image of ${name} cannot be decoded.`)));
      }
      await Promise.all(drawing);
      skipped += frame.skipped;
      charts.latency.add(frame.latency_ms);
      charts.ageX.add(frame.age_x_ms);
      charts.ageY.add(frame.age_y_ms);
      element("status").textContent = frame.status;
      element("time").textContent = `${frame.time.toFixed(2)} s`;
      element("notice").textContent = NOTICES[frame.status] || "";
      element("notice").hidden = !(frame.status in NOTICES);
      document.body.dataset.frame = frame.index;
    }
    if (header.stats) showStats(header.stats);
    if (header.ended) { ended = true; showConnection("ended", "the stream has ended"); }
    socket.send(JSON.stringify({ ack: header.sequence }));
  }

  async function connect() {
    showConnection("connecting", "connecting");
    try {
      const response = await fetch("/api/state");
      const state = await response.json();
      if (!response.ok) { showConnection("refused", state.error); return; }
      showStream(state);
    } catch { reconnect(); return; }
    socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
    socket.binaryType = "arraybuffer";
    let handled = Promise.resolve(); // messages are handled one after another
    socket.onopen = () => { retryMs = MIN_RETRY_MS; showConnection("live", "live"); requestViews(); };
    socket.onmessage = (message) => {
      handled = handled.then(() => handleMessage(message.data)).catch((error) => showError(error.message));
    };
    socket.onclose = () => handled.then(() => { if (!ended) reconnect(); });
  }
  function reconnect() {
    showConnection("lost", "connection lost, reconnecting");
    setTimeout(connect, retryMs);
    retryMs = Math.min(2 * retryMs, MAX_RETRY_MS);
  }
  function showStream(state) {
    stream = state.stream;
    editor.setFrame(stream.width, stream.height, state.grid);
    element("stage").style.setProperty("--aspect", stream.width / stream.height);
    element("description").textContent = `${stream.task}, ${stream.width}x${stream.height}, ${stream.backend}`;
    element("name-x").textContent = `${stream.roles.x}: ${stream.x}`;
    element("name-y").textContent = `${stream.roles.y}: ${stream.y}`;
    element("shift-direction").textContent = `left: ${stream.roles.y}, right: ${stream.roles.x}`;
    element("tc-moa").replaceChildren(new Option("mean of all", ""),
      ...Array.from({ length: stream.prompt_count }, (_, index) => new Option(`TC-MoA ${index + 1}`, String(index))));
    for (const id of ["overlay", "tc-moa", "opacity"]) element(id).disabled = !stream.prompt_count;
    element("no-prompt").hidden = stream.prompt_count > 0;
    scale.set(state.scale);
    shift.set(state.shift);
    element("ramp").value = state.ramp;
    element("ramp-number").value = state.ramp;
    if (state.region) { innerScale.set(state.region.scale); innerShift.set(state.region.shift); }
    lastChangeCount = 0; // a new stream counts its changes from 0
    showRegion(state);
  }
  connect();
})();
