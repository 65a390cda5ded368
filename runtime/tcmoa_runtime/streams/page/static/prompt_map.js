"use strict";

// The prompt map: blue where y dominates, orange where x does, clear where both weigh the same. Blue and orange
// differ for every common kind of color blindness. The colors span the smallest range of RANGES that holds all weights.
class PromptMap {
  static X_COLOR = [255, 140, 26];
  static Y_COLOR = [43, 140, 255];
  static NEUTRAL = 127.5; // the byte of a weight of 0.5; 127 and 128 are the nearest ones
  static RANGES = [.05, .1, .2, .3, .5]; // largest distance of a weight of x from 0.5
  static HELD_FRAMES = 20; // the range becomes smaller only after this many frames

  constructor(canvas, legend) {
    this.canvas = canvas;
    this.legend = legend; // an element with a canvas, and an element for each end's weight
    this.range = .5;
    this.numBelow = 0;
    const colors = Uint8Array.from({ length: 256 }, (_, weight) => weight);
    this.paint(legend.querySelector("canvas"), colors, 1, 256, .5);
  }

  // Draw the weights of x of a grid of tokens, bytes, with one pixel for each token.
  draw(weights, [rows, columns]) {
    const lead = weights.reduce((max, weight) => Math.max(max, Math.abs(weight - PromptMap.NEUTRAL)), 0) / 255;
    const range = PromptMap.RANGES.find((value) => value >= lead) || .5;
    this.numBelow = range < this.range ? this.numBelow + 1 : 0;
    if (range > this.range || this.numBelow > PromptMap.HELD_FRAMES || this.canvas.width !== columns) this.setRange(range);
    this.paint(this.canvas, weights, rows, columns, this.range);
  }

  setRange(range) {
    this.range = range;
    this.numBelow = 0;
    this.legend.querySelector(".low").textContent = String(Number((.5 - range).toFixed(2)));
    this.legend.querySelector(".high").textContent = String(Number((.5 + range).toFixed(2)));
  }

  setOpacity(opacity) {
    this.canvas.style.opacity = this.legend.querySelector("canvas").style.opacity = opacity;
  }

  paint(canvas, weights, rows, columns, range) {
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
    weights.forEach((weight, index) => {
      const lead = weight - PromptMap.NEUTRAL, amount = Math.max(0, Math.abs(lead) - .5) / (255 * range);
      image.data.set([...(lead > 0 ? PromptMap.X_COLOR : PromptMap.Y_COLOR), 255 * Math.min(amount, 1)], 4 * index);
    });
    context.putImageData(image, 0, 0);
  }
}
