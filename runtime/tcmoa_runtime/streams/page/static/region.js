"use strict";

// Draws a region over the fused frame: a rectangle in pixels of the frame, or a weight of 0 or 1 for each token.
class RegionEditor {
  constructor(canvas, brushSize, onStroke) {
    this.canvas = canvas;
    this.brushSize = brushSize; // returns the diameter of the brush in pixels of the frame
    this.onStroke = onStroke; // called after each stroke
    this.rectangle = null; // [left, top, width, height]
    this.mask = null;
    this.grid = null; // [rows, columns]
    this.strokeStart = null;
    this.selectTool("none");
    canvas.addEventListener("pointerdown", (event) => this.beginStroke(event));
    canvas.addEventListener("pointermove", (event) => this.continueStroke(event));
    canvas.addEventListener("pointerup", () => this.endStroke());
    canvas.addEventListener("pointercancel", () => this.endStroke());
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

  setFrame(width, height, grid) {
    this.grid = grid;
    this.canvas.width = width;
    this.canvas.height = height;
    if (!this.mask || this.mask.length !== grid[0] * grid[1]) this.mask = new Float32Array(grid[0] * grid[1]);
    this.draw();
  }

  selectTool(tool) {
    this.tool = tool;
    this.canvas.dataset.tool = tool;
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
      this.rectangle[0] = Math.min(this.rectangle[0], this.canvas.width - 1);
      this.rectangle[1] = Math.min(this.rectangle[1], this.canvas.height - 1);
    }
    this.draw();
    this.onStroke();
  }

  // Position of the pointer in pixels of the frame
  positionOf(event) {
    const box = this.canvas.getBoundingClientRect();
    const clamp = (value) => Math.min(Math.max(value, 0), 1);
    return [clamp((event.clientX - box.left) / box.width) * this.canvas.width,
      clamp((event.clientY - box.top) / box.height) * this.canvas.height];
  }

  // Paint all tokens near the line from the last position, so that a fast stroke has no gaps.
  paintTo(end) {
    const [rows, columns] = this.grid, cell = [this.canvas.width / columns, this.canvas.height / rows];
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
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.grid) return;
    context.fillStyle = "rgba(108, 178, 255, .25)";
    context.strokeStyle = "#6cb2ff";
    context.lineWidth = 2;
    if (this.rectangle) {
      context.fillRect(...this.rectangle);
      context.strokeRect(...this.rectangle);
      return;
    }
    const [rows, columns] = this.grid, cell = [this.canvas.width / columns, this.canvas.height / rows];
    this.mask.forEach((weight, index) => {
      if (weight <= 0) return;
      const column = index % columns, row = Math.floor(index / columns);
      const [left, top, right, bottom] = [column, row, column + 1, row + 1]
        .map((edge, axis) => Math.round(edge * cell[axis % 2]));
      context.fillRect(left, top, right - left, bottom - top);
    });
  }
}
