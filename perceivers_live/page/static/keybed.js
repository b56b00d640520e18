// The keyboard at the bottom of the page: shows the sounding notes, and can be played by mouse and touch.

import { keyAt, keys, pitchName, touchVelocity } from "./geometry.js";
import { readPalette } from "./palette.js";

/** @typedef {import("./music.js").Music} Music */
/** @typedef {import("./typing.js").Typing} Typing */
/** @typedef {(message: number[], at: number) => void} Play */

const LABELS = /** @type {Record<string, string>} */ ({
  Comma: ",", Period: ".", Slash: "/", Semicolon: ";", BracketLeft: "[", BracketRight: "]", Equal: "=",
});

export class Keybed {
  /**
   * @param {HTMLCanvasElement} canvas @param {Music} music @param {Typing} typing
   * @param {Play} play called with raw MIDI messages, and with when on the page's clock they were played (seconds)
   */
  constructor(canvas, music, typing, play) {
    this._canvas = canvas;
    this._context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this._music = music;
    this._typing = typing;
    this._play = play;
    this._palette = readPalette();
    /** @type {import("./geometry.js").Key[]} */
    this._keys = [];
    /** @type {Map<number, number>} pointer -> pitch */
    this._pointers = new Map();
    this._drawn = "";
    this.isPlayable = false;
    this._hasKeyboard = matchMedia("(hover: hover)").matches; // a phone has no letters to press
    this.resize();
    new ResizeObserver(() => this.resize()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this._down(event));
    canvas.addEventListener("pointermove", (event) => this._move(event));
    for (const kind of /** @type {const} */ (["pointerup", "pointercancel", "lostpointercapture"])) {
      canvas.addEventListener(kind, (event) => this._up(event));
    }
  }

  /** Adapts to a new canvas size or theme. */
  resize() {
    const { clientWidth: width, clientHeight: height } = this._canvas;
    const ratio = Math.min(devicePixelRatio, 2);
    this._canvas.width = Math.max(1, Math.round(width * ratio));
    this._canvas.height = Math.max(1, Math.round(height * ratio));
    this._context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this._palette = readPalette();
    const [lowest, highest] = width > 900 ? [21, 108] : width > 560 ? [36, 96] : [48, 71];
    this._keys = keys(width, height, lowest, highest);
    this._drawn = "";
    this.draw();
  }

  /** Draws the keyboard if something has changed. */
  draw() {
    const sounding = this._music.sounding();
    const state = `${[...sounding].join()} ${this._typing.base} ${this.isPlayable}`;
    if (state === this._drawn) return;
    this._drawn = state;
    const context = this._context;
    context.clearRect(0, 0, this._canvas.clientWidth, this._canvas.clientHeight);
    for (const key of this._keys) {
      const part = sounding.get(key.pitch);
      const rest = key.black ? this._palette.black : this._palette.white;
      context.fillStyle = part ? this._palette[part === "human" ? "accentHuman" : "accentMachine"] : rest;
      context.beginPath();
      context.roundRect(key.x + 0.5, -4, key.width - 1, key.height + 3, key.black ? 3 : 4);
      context.fill();
      if (!key.black) {
        context.strokeStyle = this._palette.keyEdge;
        context.stroke();
      }
      this._label(key, part !== undefined);
    }
  }

  /** @param {import("./geometry.js").Key} key @param {boolean} isLit */
  _label(key, isLit) {
    const codes = this.isPlayable && this._hasKeyboard && key.width > 9 ? this._typing.codesFor(key.pitch) : [];
    const labels = codes.map((code) => LABELS[code] ?? code.replace(/^Key|^Digit/, ""));
    const text = labels[0] ?? (!key.black && key.pitch % 12 === 0 && key.width > 12 ? pitchName(key.pitch) : "");
    if (!text) return;
    const context = this._context;
    context.font = labels.length ? "600 11px system-ui, sans-serif" : "10px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillStyle = key.black !== isLit ? this._palette.white : this._palette.black;
    context.globalAlpha = labels.length ? 0.85 : 0.45;
    context.fillText(text, key.x + key.width / 2, key.height - 9);
    context.globalAlpha = 1;
  }

  /** @param {PointerEvent} event */
  _down(event) {
    if (!this.isPlayable || event.button > 0) return;
    event.preventDefault();
    this._canvas.setPointerCapture(event.pointerId);
    this._strike(event);
  }

  /** Sliding onto another key plays it. @param {PointerEvent} event */
  _move(event) {
    const pitch = this._pointers.get(event.pointerId);
    if (pitch === undefined) return;
    const key = keyAt(this._keys, event.offsetX, event.offsetY);
    if (key && key.pitch !== pitch) {
      this._up(event);
      this._strike(event);
    }
  }

  /** @param {PointerEvent} event */
  _strike(event) {
    const key = keyAt(this._keys, event.offsetX, event.offsetY);
    if (!key) return;
    const isDown = [...this._pointers.values()].includes(key.pitch);
    this._pointers.set(event.pointerId, key.pitch);
    if (!isDown) this._play([0x90, key.pitch, touchVelocity(key, event.offsetY)], event.timeStamp / 1000);
  }

  /** @param {PointerEvent} event */
  _up(event) {
    const pitch = this._pointers.get(event.pointerId);
    if (pitch === undefined) return;
    this._pointers.delete(event.pointerId);
    if (![...this._pointers.values()].includes(pitch)) this._play([0x80, pitch, 64], event.timeStamp / 1000);
  }
}
