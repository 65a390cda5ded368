"use strict";

// Draws a region over the fused frame: a rectangle in pixels of the frame, or a weight of 0 or 1 for each token. Only its
// outline is drawn: a tint would change the very colors that are to be judged.
class RegionEditor {
  constructor(canvas, brushSize, onStroke) {
    this.canvas = canvas;
    this.brushSize = brushSize; // returns the diameter of the brush in pixels of the frame
    this.onStroke = onStroke; // called after each stroke
    this.rectangle = null; // [left, top, width, height]
    this.mask = null;
    this.frame = [1, 1]; // [width, height]
    this.grid = null; // [rows, columns]
    this.cell = [1, 1]; // [width, height] of a token in pixels of the frame
    this.strokeStart = null;
    this.selectTool("none");
    canvas.addEventListener("pointerdown", (event) => this.beginStroke(event));
    canvas.addEventListener("pointermove", (event) => this.continueStroke(event));
    canvas.addEventListener("pointerup", () => this.endStroke());
    canvas.addEventListener("pointercancel", () => this.endStroke());
    canvas.addEventListener("keydown", (event) => this.handleKey(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  get isDrawing() { return this.strokeStart !== null; }
  get paintedTokens() { return this.mask.reduce((sum, weight) => sum + weight, 0); }

  // The region for the HTTP API, or null
  get shape() {
    if (this.rectangle) return { rectangle: this.rectangle };
    if (!this.mask || !this.mask.some((weight) => weight > 0)) return null;
    const [rows, columns] = this.grid;
    return { mask: Array.from({ length: rows }, (_, row) => Array.from(this.mask.subarray(row * columns, (row + 1) * columns))) };
  }

  // A token has `tokenPx` pixels, of which the last ones may lie outside; without it, tokens divide the frame evenly.
  setFrame(width, height, grid, tokenPx) {
    this.frame = [width, height];
    this.grid = grid;
    this.cell = tokenPx ? [tokenPx, tokenPx] : [width / grid[1], height / grid[0]];
    if (!this.mask || this.mask.length !== grid[0] * grid[1]) this.mask = new Float32Array(grid[0] * grid[1]);
    this.draw();
  }

  selectTool(tool) {
    this.tool = tool;
    this.canvas.dataset.tool = tool;
    this.canvas.tabIndex = tool === "rectangle" ? 0 : -1;
  }

  clear() {
    if (this.mask) this.mask.fill(0);
    this.rectangle = null;
    this.draw();
  }

  showRectangle(rectangle) {
    if (String(rectangle) === String(this.rectangle)) return;
    this.clear();
    this.rectangle = rectangle;
    this.draw();
  }

  beginStroke(event) {
    if (this.tool === "none" || !this.grid) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.strokeStart = this.positionOf(event);
    if (this.tool !== "rectangle") this.paintTo(this.strokeStart);
  }

  continueStroke(event) {
    if (!this.isDrawing) return;
    if (this.tool === "rectangle") this.dragTo(this.positionOf(event));
    else this.paintTo(this.positionOf(event));
  }

  endStroke() {
    if (!this.isDrawing) return;
    this.strokeStart = null;
    if (this.rectangle && (this.rectangle[2] < 1 || this.rectangle[3] < 1)) this.rectangle = null;
    if (this.rectangle) {
      this.rectangle[0] = Math.min(this.rectangle[0], this.frame[0] - 1);
      this.rectangle[1] = Math.min(this.rectangle[1], this.frame[1] - 1);
    }
    this.draw();
    this.onStroke();
  }

  // Arrow keys move the rectangle by a token, with Shift they change its size; Delete removes it.
  handleKey(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }, step = steps[event.key];
    if (this.tool !== "rectangle" || !this.grid || !(step || event.key === "Delete" || event.key === "Backspace")) return;
    event.preventDefault();
    if (!step) this.clear();
    else {
      const at = this.rectangle || this.frame.map((side) => Math.round(side / 3)).concat(this.frame.map((side) => Math.round(side / 3)));
      const next = [...at];
      for (const axis of [0, 1]) {
        const [start, length, side] = [at[axis], at[axis + 2], this.frame[axis]], change = Math.round(step[axis] * this.cell[axis]);
        if (event.shiftKey) next[axis + 2] = Math.min(Math.max(length + change, 1), side - start);
        else next[axis] = Math.min(Math.max(start + change, 0), Math.max(side - length, 0));
      }
      this.mask.fill(0);
      this.rectangle = this.rectangle ? next : at;
    }
    this.draw();
    this.onStroke();
  }

  // Position of the pointer in pixels of the frame
  positionOf(event) {
    const box = this.canvas.getBoundingClientRect();
    const clamp = (value) => Math.min(Math.max(value, 0), 1);
    return [clamp((event.clientX - box.left) / box.width) * this.frame[0],
      clamp((event.clientY - box.top) / box.height) * this.frame[1]];
  }

  // Paint all tokens near the line from the last position, so that a fast stroke has no gaps.
  paintTo(end) {
    const [rows, columns] = this.grid, cell = this.cell;
    const [startX, startY] = this.strokeStart, line = [end[0] - startX, end[1] - startY];
    const length = Math.hypot(...line), radius = this.brushSize() / 2 + Math.min(...cell) / 2;
    const weight = this.tool === "erase" ? 0 : 1;
    this.rectangle = null;
    for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) {
      const offset = [(column + .5) * cell[0] - startX, (row + .5) * cell[1] - startY];
      const along = length ? Math.min(Math.max((offset[0] * line[0] + offset[1] * line[1]) / length ** 2, 0), 1) : 0;
      const distance = Math.hypot(offset[0] - along * line[0], offset[1] - along * line[1]);
      if (distance <= radius) this.mask[row * columns + column] = weight;
    }
    this.strokeStart = end;
    this.draw();
  }

  dragTo(end) {
    const [startX, startY] = this.strokeStart;
    this.rectangle = [Math.min(startX, end[0]), Math.min(startY, end[1]), Math.abs(end[0] - startX),
      Math.abs(end[1] - startY)].map((value) => Math.round(value));
    this.mask.fill(0);
    this.draw();
  }

  draw() {
    const ratio = window.devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = this.canvas;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    if (!this.grid || !width) return;
    const context = this.canvas.getContext("2d");
    const outline = this.rectangle ? this.rectangleOutline() : this.maskOutline();
    // Dark under light, so that the line shows on every picture.
    for (const [color, thickness] of [["rgba(0, 0, 0, .75)", 4], ["#fff", 1.5]]) {
      context.strokeStyle = color;
      context.lineWidth = thickness * ratio;
      context.lineCap = "square";
      context.beginPath();
      for (const [x0, y0, x1, y1] of outline) {
        context.moveTo(this.toCanvas(x0, 0, ratio), this.toCanvas(y0, 1, ratio));
        context.lineTo(this.toCanvas(x1, 0, ratio), this.toCanvas(y1, 1, ratio));
      }
      context.stroke();
    }
  }

  // A coordinate of the frame on the canvas; at least half a line inside, so that the edge of the frame shows.
  toCanvas(value, axis, ratio) {
    const size = axis ? this.canvas.height : this.canvas.width;
    return Math.min(Math.max(value / this.frame[axis] * size, 2 * ratio), size - 2 * ratio);
  }

  rectangleOutline() {
    const [left, top, width, height] = this.rectangle, right = left + width, bottom = top + height;
    return [[left, top, right, top], [right, top, right, bottom], [right, bottom, left, bottom], [left, bottom, left, top]];
  }

  // Sides between a painted token and one that is not painted
  maskOutline() {
    const [rows, columns] = this.grid, [width, height] = this.cell, lines = [];
    const isPainted = (row, column) => row >= 0 && row < rows && column >= 0 && column < columns && this.mask[row * columns + column] > 0;
    for (let row = 0; row <= rows; row++) for (let column = 0; column <= columns; column++) {
      const [x, y] = [column * width, row * height];
      if (isPainted(row, column) !== isPainted(row - 1, column)) lines.push([x, y, x + width, y]);
      if (isPainted(row, column) !== isPainted(row, column - 1)) lines.push([x, y, x, y + height]);
    }
    return lines;
  }
}
