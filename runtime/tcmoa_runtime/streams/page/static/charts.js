"use strict";

// A line chart of the last minute. Its newest value is beside the caption; the axes are time and the value.
class Chart {
  static HISTORY_SECONDS = 60;
  static MAX_POINTS = 4000;
  static TIME_LABELS = [[60, "60 s ago"], [30, "30 s"], [0, "now"]];

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
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    if (!points.length || !width) return;
    const context = this.canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`);
    context.scale(ratio, ratio);
    context.font = "10px system-ui, sans-serif";
    const top = Chart.roundUp(Math.max(...points.map((point) => point[1]))), right = width - 6, under = 15;
    const values = [0, top / 2, top].map((value) => [value, String(Number(value.toPrecision(3)))]);
    const left = Math.max(30, ...values.map(([, label]) => context.measureText(label).width + 6));
    const xOf = (age) => right - (right - left) * age / Chart.HISTORY_SECONDS;
    const yOf = (value) => height - under - (height - under - 8) * value / top;
    context.fillStyle = color("muted");
    context.strokeStyle = color("grid");
    context.lineWidth = 1;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const [value, label] of values) {
      context.fillText(label, left - 4, yOf(value));
      this.line(context, [[left, yOf(value)], [right, yOf(value)]]);
    }
    context.textBaseline = "alphabetic";
    for (const [age, label] of Chart.TIME_LABELS) {
      context.textAlign = age === 0 ? "right" : age === Chart.HISTORY_SECONDS ? "left" : "center";
      context.fillText(label, xOf(age), height - 4);
      this.line(context, [[xOf(age), yOf(0)], [xOf(age), yOf(top)]]);
    }
    context.strokeStyle = color("accent");
    context.lineWidth = 1.5;
    this.line(context, points.map(([time, value]) => [xOf(now - time), yOf(value)]));
    this.output.textContent = points[points.length - 1][1].toFixed(this.digits) + this.unit;
  }

  line(context, places) {
    context.beginPath();
    for (const [x, y] of places) context.lineTo(x, y);
    context.stroke();
  }

  // The next of 1, 2, 5, 10, 20, 50, ...
  static roundUp(value) {
    const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-3)));
    return power * [1, 2, 5, 10].find((step) => step * power >= value * 0.9999);
  }
}
