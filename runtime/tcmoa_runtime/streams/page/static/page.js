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
    showNotice(state === "live" || state === "connecting" ? "" : text); // on a phone, the header is out of view
  };
  const showNotice = (text) => {
    element("notice").textContent = text;
    element("notice").hidden = !text;
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
  const promptMap = new PromptMap(element("prompt"), element("legend"));
  makeSlider("opacity", (value) => promptMap.setOpacity(value));
  const innerScale = makeSlider("inner-scale", () => sendRegion());
  const innerShift = makeSlider("inner-shift", () => sendRegion());
  promptMap.setOpacity(element("opacity").value);
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

  const IMAGES = ["fused", "x", "y"], MAX_WIDTH_PX = 8192;
  function requestViews() {
    if (!socket || socket.readyState !== WebSocket.OPEN) return;
    const visible = document.hidden ? [] : [...IMAGES, ...(element("overlay").checked ? ["prompt"] : [])];
    const views = recorder.isIdle || visible.length ? visible : ["fused"];
    const shown = Math.max(64, Math.round(element("picture").clientWidth * (window.devicePixelRatio || 1)));
    const width = recorder.isIdle ? Math.min(shown, MAX_WIDTH_PX) : stream.width;
    const tcMoa = element("tc-moa").value === "" ? null : Number(element("tc-moa").value);
    socket.send(JSON.stringify({ show: { views, width, tc_moa: tcMoa } }));
  }
  document.addEventListener("visibilitychange", requestViews);
  element("overlay").addEventListener("change", () => {
    element("prompt").hidden = element("legend").hidden = !element("overlay").checked;
    requestViews();
  });
  element("tc-moa").addEventListener("change", requestViews);
  new ResizeObserver(requestViews).observe(element("picture"));

  async function drawImage(name, bytes) {
    const image = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
    const canvas = element(name);
    if (canvas.width !== image.width || canvas.height !== image.height) {
      canvas.width = image.width;
      canvas.height = image.height;
    }
    canvas.getContext("2d").drawImage(image, 0, 0);
    image.close();
    if (name === "fused") recorder.onFrame();
  }
  // The map covers whole tokens, of which the last ones may lie outside of the frame.
  function drawPrompt(weights, grid) {
    promptMap.draw(weights, grid);
    const [width, height] = [editor.cell[0] * grid[1] / editor.frame[0], editor.cell[1] * grid[0] / editor.frame[1]];
    element("prompt").style.width = `${100 * width}%`;
    element("prompt").style.height = `${100 * height}%`;
  }

  // Snapshot, recording, fullscreen, theme

  element("snapshot").addEventListener("click", async () => {
    try {
      const response = await fetch("/api/snapshot.png?view=fused");
      if (!response.ok) throw new Error((await response.json()).error);
      const [, name] = response.headers.get("Content-Disposition").match(/filename="([^"]+)"/);
      saveFile(await response.blob(), name);
      showError("");
    } catch (error) {
      showError(error instanceof TypeError ? "snapshot: the stream does not answer." : error.message);
    }
  });

  const recordButton = element("record");
  const recorder = new CanvasRecorder(element("fused"), (text) => {
    recordButton.textContent = text || "Record";
    recordButton.setAttribute("aria-pressed", String(Boolean(text)));
  });
  recordButton.hidden = !CanvasRecorder.isSupported;
  recordButton.addEventListener("click", () => {
    if (recorder.isIdle) recorder.start(stream ? stream.width : 0);
    else recorder.stop();
    requestViews();
  });
  window.addEventListener("beforeunload", (event) => { if (!recorder.isIdle) event.preventDefault(); });

  element("fullscreen").hidden = !document.fullscreenEnabled;
  element("fullscreen").addEventListener("click", () => {
    element("stage").requestFullscreen().catch((error) => showError(`fullscreen: ${error.message}`));
  });

  const THEMES = ["system", "dark", "light"];
  function showTheme(theme) {
    document.documentElement.dataset.theme = theme;
    element("theme").textContent = `Theme: ${theme}`;
    for (const chart of Object.values(charts)) chart.draw();
  }
  element("theme").addEventListener("click", () => {
    const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
    localStorage.setItem("tcmoa-theme", theme);
    showTheme(theme);
  });

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
      showNotice(NOTICES[frame.status] || "");
      document.body.dataset.frame = frame.index;
    }
    if (header.stats) showStats(header.stats);
    if (header.ended) {
      ended = true;
      showConnection("ended", "the stream has ended");
      recorder.stop();
    }
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
    // A wrapped network has no prompt: neither its controls nor regions nor a map of it.
    for (const part of document.querySelectorAll(".of-prompt")) part.hidden = !stream.has_prompt;
    if (stream.has_prompt) editor.setFrame(state.size[1], state.size[0], state.grid, stream.token_px);
    element("images").style.setProperty("--aspect", stream.sample_aspect_ratio * stream.width / stream.height);
    element("description").textContent = `${stream.task}, ${stream.width}x${stream.height}, ${stream.backend}`;
    for (const side of ["x", "y"]) {
      const role = stream.roles[side];
      element(`name-${side}`).textContent = `${role}: ${stream[side]}`;
      element(`legend-${side}`).textContent = `${role} (${side})`;
      for (const end of document.querySelectorAll(`.role-${side}`)) end.textContent = `favor ${role} (${side})`;
    }
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
  showTheme(THEMES.includes(localStorage.getItem("tcmoa-theme")) ? localStorage.getItem("tcmoa-theme") : "system");
  connect();
})();
