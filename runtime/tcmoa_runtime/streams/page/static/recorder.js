"use strict";

// Records a canvas into a video file that the browser saves. Nothing is written on the server.
class CanvasRecorder {
  static TYPES = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm", "video/mp4"];
  static MAX_MINUTES = 60;
  static BITS_PER_PIXEL = 8;
  static MAX_BITS_PER_SECOND = 25e6;
  static MIN_BITS_PER_SECOND = 2.5e6;

  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.onChange = onChange; // called with a text while recording, with null at the end
    this.state = "idle"; // idle, waiting (for a frame of full size), recording
    this.fullWidth = 0;
  }

  static get isSupported() {
    return typeof MediaRecorder === "function" && "captureStream" in HTMLCanvasElement.prototype;
  }

  get isIdle() { return this.state === "idle"; }

  start(fullWidth) {
    this.state = "waiting";
    this.fullWidth = fullWidth;
    this.onChange("Stop (0:00)");
  }

  // Begin with the first frame of full size: a change of the size would end some encoders.
  onFrame() {
    if (this.state !== "waiting" || this.canvas.width < this.fullWidth) return;
    const type = CanvasRecorder.TYPES.find((name) => MediaRecorder.isTypeSupported(name));
    const bits = this.canvas.width * this.canvas.height * CanvasRecorder.BITS_PER_PIXEL;
    this.recorder = new MediaRecorder(this.canvas.captureStream(), {
      mimeType: type,
      videoBitsPerSecond: Math.min(Math.max(bits, CanvasRecorder.MIN_BITS_PER_SECOND), CanvasRecorder.MAX_BITS_PER_SECOND),
    });
    this.startTime = new Date();
    const chunks = [];
    let bytes = 0;
    this.recorder.ondataavailable = ({ data }) => {
      if (data.size) chunks.push(data);
      bytes += data.size;
      const seconds = Math.floor((Date.now() - this.startTime) / 1000);
      if (this.state !== "recording") return;
      const elapsed = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
      this.onChange(`Stop (${elapsed}, ${(bytes / 1e6).toFixed(1)} MB)`);
      if (seconds >= 60 * CanvasRecorder.MAX_MINUTES) this.stop();
    };
    this.recorder.onstop = () => {
      const suffix = this.recorder.mimeType.includes("mp4") ? "mp4" : "webm";
      saveFile(new Blob(chunks, { type: this.recorder.mimeType }), `fused-${timeStamp(this.startTime)}.${suffix}`);
    };
    this.recorder.start(1000);
    this.state = "recording";
  }

  // End, and save what there is.
  stop() {
    if (this.isIdle) return;
    const wasRecording = this.state === "recording";
    this.state = "idle";
    if (wasRecording) this.recorder.stop();
    this.onChange(null);
  }
}

// Local date and time for a file name, e.g. 20260131-142501
function timeStamp(time) {
  const two = (number) => String(number).padStart(2, "0");
  return `${time.getFullYear()}${two(time.getMonth() + 1)}${two(time.getDate())}-` +
    `${two(time.getHours())}${two(time.getMinutes())}${two(time.getSeconds())}`;
}

function saveFile(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
