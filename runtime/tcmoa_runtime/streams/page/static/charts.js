"use strict";

// A line chart of the last minute, with its newest value beside the caption and its maximum in the corner.
class Chart {
  static HISTORY_SECONDS = 60;
  static MAX_POINTS = 4000;

  constructor(name, unit, digits) {
    this.canvas = document.getElementById(`chart-${name}`);
    this.output = document.getElementById(name);
    this.unit = unit;
    this.digits = digits;
    this.points = []; // [time in seconds, value]
  }

  add(value) {
    if (value === null || value === undefined) return;
    const now = performance.now() / 1000, points = this.points;
    points.push([now, value]);
    while (points[0][0] < now - Chart.HISTORY_SECONDS || points.length > Chart.MAX_POINTS) points.shift();
  }

  draw() {
    const ratio = window.devicePixelRatio || 1, now = performance.now() / 1000, points = this.points;
    const width = this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    const height = this.canvas.height = Math.round(this.canvas.clientHeight * ratio);
    if (!points.length) return;
    const context = this.canvas.getContext("2d");
    const max = Math.max(...points.map((point) => point[1]), 1e-9), top = max * 1.1;
    context.strokeStyle = "#6cb2ff";
    context.lineWidth = 1.5 * ratio;
    context.beginPath();
    for (const [time, value] of points) {
      context.lineTo(width * (1 - (now - time) / Chart.HISTORY_SECONDS), height * (1 - value / top) - ratio);
    }
    context.stroke();
    context.fillStyle = "#9aa0ad";
    context.font = `${10 * ratio}px system-ui, sans-serif`;
    context.fillText(this.format(max), 4 * ratio, 12 * ratio);
    this.output.textContent = this.format(points[points.length - 1][1]);
  }

  format(value) { return value.toFixed(this.digits) + this.unit; }
}
