// The piano roll: past notes on the left, the keys in the middle, planned notes on the right.

import { isBlack, pitchName, pitchY, stage, timeX } from "./geometry.js";
import { readPalette, shadeOf } from "./palette.js";

/** @typedef {import("./music.js").Music} Music */
/** @typedef {import("./music.js").Note} Note */
/** @typedef {import("./geometry.js").Stage} Stage */

const PEDAL_LANE = 7; // pixels, for each part
const FADE = 0.9; // seconds in which what was dropped vanishes
const FONT = "11px system-ui, sans-serif";

/**
 * What the piano roll shows besides notes.
 * @typedef {{now: number, countdown: number | null, beat: import("./messages.js").Beat | null, beatsPerBar: number}} Moment
 */

export class Roll {
  /** @param {HTMLCanvasElement} canvas @param {Music} music */
  constructor(canvas, music) {
    this._canvas = canvas;
    this._context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { alpha: false }));
    this._music = music;
    this._palette = readPalette();
    this._stage = stage(100, 100);
    this._calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.resize();
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  /** Adapts to a new canvas size or theme. */
  resize() {
    const { clientWidth: width, clientHeight: height } = this._canvas;
    const ratio = Math.min(devicePixelRatio, 2);
    this._canvas.width = Math.max(1, Math.round(width * ratio));
    this._canvas.height = Math.max(1, Math.round(height * ratio));
    this._context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this._palette = readPalette();
    this._stage = stage(width, Math.max(1, height - 2 * PEDAL_LANE - 6));
    this._music.memory = this._stage.nowX / this._stage.perSecond + 1;
  }

  /** @param {Moment} moment */
  draw(moment) {
    const { width, height } = this._stage;
    const context = this._context;
    context.fillStyle = this._palette.paper;
    context.fillRect(0, 0, width, height + 2 * PEDAL_LANE + 6);
    this._drawRows();
    this._drawTime(moment);
    this._drawPedals(moment.now);
    this._drawPlan(moment.now);
    this._drawDropped(moment.now);
    for (const note of this._music.notes) this._drawNote(note, moment.now);
    this._drawKeys();
    if (moment.countdown !== null) this._drawCountdown(moment.countdown, moment.now);
  }

  _drawRows() {
    const { lowest, highest, row, width } = this._stage, context = this._context;
    context.fillStyle = this._palette.rowDark;
    for (let pitch = lowest; pitch <= highest; pitch++) {
      if (isBlack(pitch)) context.fillRect(0, pitchY(this._stage, pitch), width, row);
    }
    context.fillStyle = this._palette.line;
    context.font = FONT;
    for (let pitch = 24; pitch < highest; pitch += 12) {
      const y = Math.round(pitchY(this._stage, pitch) + row);
      context.fillRect(0, y, width, 1);
      context.fillStyle = this._palette.faint;
      context.fillText(pitchName(pitch), 8, y - 4);
      context.fillStyle = this._palette.line;
    }
  }

  /** Beats and bars where there is a clock, seconds where there is none. @param {Moment} moment */
  _drawTime({ now, beat, beatsPerBar }) {
    const period = beat?.running && beat.bpm > 0 ? 60 / beat.bpm : 1;
    const first = beat?.running && beat.bpm > 0 ? beat.at - beat.beat * period : 0;
    const { height, width, nowX, planX, perSecond } = this._stage;
    const context = this._context;
    const from = Math.ceil((now - nowX / perSecond - first) / period);
    const to = Math.floor((now + (width - planX) / perSecond - first) / period);
    for (let n = from; n <= to; n++) {
      const isBar = beat?.running === true && n % beatsPerBar === 0;
      context.fillStyle = isBar ? this._palette.faint : this._palette.line;
      context.globalAlpha = isBar ? 0.5 : 1;
      context.fillRect(Math.round(timeX(this._stage, first + n * period, now)), 0, 1, height);
    }
    context.globalAlpha = 1;
  }

  /** @param {number} now */
  _drawPedals(now) {
    const { height, nowX } = this._stage, context = this._context;
    for (const press of this._music.presses) {
      const y = height + 4 + (press.part === "human" ? 0 : PEDAL_LANE);
      const x = Math.max(0, timeX(this._stage, press.start, now));
      const end = press.end === null ? nowX : Math.min(nowX, timeX(this._stage, press.end, now));
      context.fillStyle = this._palette[press.part][press.end === null ? 12 : 5];
      context.fillRect(x, y, Math.max(2, end - x), PEDAL_LANE - 3);
    }
  }

  /** @param {Note} note @param {number} now */
  _drawNote(note, now) {
    const { nowX, row } = this._stage, context = this._context;
    const end = note.end === null ? nowX : Math.min(nowX, timeX(this._stage, note.end, now));
    if (end < 0) return;
    const x = Math.min(nowX - 2, timeX(this._stage, note.start, now));
    const y = pitchY(this._stage, note.pitch), high = Math.max(3, row);
    context.fillStyle = this._palette[note.part][shadeOf(note.velocity)];
    if (note.part === "human") context.fillRect(x, y, Math.max(3, end - x - 1), high);
    else pill(context, x, y, Math.max(3, end - x - 1), high);
    if (note.end === null) {
      context.fillStyle = this._palette[note.part === "human" ? "accentHuman" : "accentMachine"];
      context.fillRect(nowX - 3, y, 3, high);
    }
  }

  /** @param {number} now */
  _drawPlan(now) {
    const context = this._context;
    context.fillStyle = this._palette.plan;
    context.strokeStyle = this._palette.planEdge;
    context.lineWidth = 1;
    for (const note of this._music.plan) {
      this._planPath(note, now, 0);
      context.fill();
      context.stroke();
    }
  }

  /** Dropped events fall and fade. @param {number} now */
  _drawDropped(now) {
    const context = this._context;
    context.strokeStyle = this._palette.planEdge;
    context.setLineDash([3, 3]);
    for (const note of this._music.dropped) {
      const age = (now - note.droppedAt) / FADE;
      if (age < 0 || age >= 1) continue;
      context.globalAlpha = (1 - age) ** 1.5;
      this._planPath(note, note.droppedAt, this._calm ? 0 : 26 * age * age);
      context.stroke();
    }
    context.globalAlpha = 1;
    context.setLineDash([]);
  }

  /** @param {{pitch: number, start: number, end: number | null}} note @param {number} now @param {number} fallen pixels */
  _planPath(note, now, fallen) {
    const x = Math.max(this._stage.planX, timeX(this._stage, note.start, now));
    const end = note.end === null ? x + 0.25 * this._stage.perSecond : timeX(this._stage, note.end, now);
    const high = Math.max(3, this._stage.row);
    path(this._context, x + 0.5, pitchY(this._stage, note.pitch) + 0.5 + fallen, Math.max(4, end - x - 1), high - 1);
  }

  _drawKeys() {
    const { nowX, planX, height, lowest, highest, row } = this._stage, context = this._context;
    const sounding = this._music.sounding();
    context.fillStyle = this._palette.keyEdge;
    context.fillRect(nowX - 1, 0, planX - nowX + 2, height);
    context.fillStyle = this._palette.white;
    context.fillRect(nowX, 0, planX - nowX, height);
    for (let pitch = lowest; pitch <= highest; pitch++) {
      const part = sounding.get(pitch), y = pitchY(this._stage, pitch);
      if (part) {
        context.fillStyle = this._palette[part === "human" ? "accentHuman" : "accentMachine"];
        context.fillRect(nowX, y, planX - nowX, Math.max(3, row));
      } else if (isBlack(pitch)) {
        context.fillStyle = this._palette.black;
        context.fillRect(nowX, y, (planX - nowX) * 0.62, row);
      } else if (pitch % 12 === 0 || pitch % 12 === 5) {
        context.fillStyle = this._palette.keyEdge;
        context.fillRect(nowX, y + row - 0.5, planX - nowX, 1);
      }
    }
  }

  /** Where the machine will begin, if nothing more is played. @param {number} at @param {number} now */
  _drawCountdown(at, now) {
    const { planX, height, width } = this._stage, context = this._context;
    if (at <= now) return;
    const x = Math.min(width - 2, timeX(this._stage, at, now));
    context.fillStyle = this._palette.accentMachine;
    context.globalAlpha = 0.1;
    context.fillRect(planX, 0, x - planX, height);
    context.globalAlpha = 1;
    context.fillRect(x - 1, 0, 2, height);
  }
}

/** @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {number} width @param {number} height */
function pill(context, x, y, width, height) {
  path(context, x, y, width, height);
  context.fill();
}

/** @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {number} width @param {number} height */
function path(context, x, y, width, height) {
  context.beginPath();
  context.roundRect(x, y, width, height, Math.min(height / 2, width / 2, 4));
}
