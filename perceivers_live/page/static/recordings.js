// The recordings of earlier sessions: lists, draws, plays (with the page's piano) and downloads them.

import { element } from "./dom.js";
import { readMidi } from "./midifile.js";
import { readPalette, shadeOf } from "./palette.js";
import { PARTS } from "./sound.js";

/** @typedef {import("./midifile.js").Recording} Recording */
/** @typedef {import("./sound.js").Sound} Sound */

const AHEAD = 0.5; // seconds that are handed to the piano at a time
const GAP = 3; // seconds: longer silences are shortened when a session is played again

/** Times with long silences shortened. @param {Recording} recording @returns {(time: number) => number} */
export function squeezed(recording) {
  /** @type {[from: number, taken: number][]} time after a silence, seconds taken away up to there */
  const cuts = [];
  let sounding = 0, taken = 0;
  for (const note of [...recording.notes].sort((a, b) => a.start - b.start)) {
    if (note.start - sounding > GAP) {
      taken += note.start - sounding - GAP;
      cuts.push([note.start, taken]);
    }
    sounding = Math.max(sounding, note.end);
  }
  return (time) => time - (cuts.findLast(([from]) => time >= from - GAP / 2)?.[1] ?? 0);
}

/** "2026-01-31_18-30-00" -> "31 Jan 2026, 18:30" @param {string} name */
export function recordingTitle(name) {
  const found = /^(\d{4})-(\d\d)-(\d\d)_(\d\d)-(\d\d)-(\d\d)(?:_(\d+))?$/.exec(name);
  if (!found) return name;
  const [, year, month, day, hour, minute, , number] = found;
  const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  return `${Number(day)} ${months[Number(month) - 1]} ${year}, ${hour}:${minute}${number ? ` (${number})` : ""}`;
}

export class Recordings {
  /** @param {HTMLElement} where @param {Sound} sound */
  constructor(where, sound) {
    this._sound = sound;
    this._list = element("ul", { class: "recordings" });
    this._none = element("p", { class: "empty" }, "No recordings yet. Every session in which a note is played becomes one.");
    where.replaceChildren(this._none, this._list);
    this._timer = 0;
    this._turn = 0; // number of the latest replay or stop; an earlier one that still waits for the sound is given up
    /** @type {(() => void) | null} */
    this._stopped = null;
  }

  /** Updates the list. */
  async refresh() {
    const response = await fetch("/recordings");
    const found = /** @type {{name: string, bytes: number}[]} */ (await response.json());
    this._none.hidden = found.length > 0;
    this._list.replaceChildren(...found.map(({ name }) => this._item(name)));
  }

  /** Stops playback. */
  stop() {
    this._turn++;
    clearInterval(this._timer);
    this._sound.silence();
    this._stopped?.();
    this._stopped = null;
  }

  /** @param {string} name */
  _item(name) {
    const canvas = element("canvas", { class: "thumb", "aria-hidden": "true" });
    const play = element("button", { type: "button" }, "Play");
    const link = element("a", { href: `/recordings/${encodeURIComponent(name)}.mid`, download: `${name}.mid` }, "Download");
    const about = element("span", { class: "about" });
    const head = element("div", { class: "head" }, element("strong", {}, recordingTitle(name)), about, play, link);
    const item = element("li", { "data-recording": name }, head, canvas);
    /** @type {Recording | null} */
    let recording = null;
    const load = async () => {
      if (recording) return recording;
      const response = await fetch(link.href);
      recording = readMidi(new Uint8Array(await response.arrayBuffer()));
      about.textContent = `${recording.notes.length} notes`;
      drawRecording(canvas, recording, 0);
      return recording;
    };
    play.addEventListener("click", async () => {
      const wasPlaying = play.textContent === "Stop";
      this.stop();
      const turn = this._turn;
      if (!wasPlaying) await load().then((loaded) => this._replay(loaded, play, canvas, turn)).catch((error) => { about.textContent = error.message; });
    });
    const seen = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      seen.disconnect();
      load().catch((error) => { about.textContent = error.message; });
    });
    seen.observe(item);
    return item;
  }

  /** @param {Recording} recording @param {HTMLButtonElement} button @param {HTMLCanvasElement} canvas @param {number} turn */
  async _replay(recording, button, canvas, turn) {
    await this._sound.start();
    if (turn !== this._turn) return;
    const time = squeezed(recording);
    const began = performance.now() / 1000 + 0.1;
    const end = time(recording.length);
    let next = 0;
    button.textContent = "Stop";
    this._stopped = () => {
      button.textContent = "Play";
      drawRecording(canvas, recording, 0);
    };
    this._timer = setInterval(() => {
      const now = performance.now() / 1000 - began;
      for (; next < recording.events.length && time(recording.events[next].time) < now + AHEAD; next++) {
        const one = recording.events[next];
        this._sound.playAt(PARTS.replay, one.message, time(one.time) - now);
      }
      drawRecording(canvas, recording, now / Math.max(end, 0.1));
      if (now > end + 1) this.stop();
    }, 100);
  }
}

/** @param {HTMLCanvasElement} canvas @param {Recording} recording @param {number} share of it that was played */
function drawRecording(canvas, recording, share) {
  const palette = readPalette();
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = Math.min(devicePixelRatio, 2);
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(ratio, ratio);
  const time = squeezed(recording);
  const scale = width / Math.max(time(recording.length), 1);
  const pitches = recording.notes.map((note) => note.pitch);
  const lowest = Math.min(...pitches.slice(0, 50000), 60) - 2, highest = Math.max(...pitches.slice(0, 50000), 72) + 2;
  for (const note of recording.notes) {
    const isMachine = recording.tracks[note.track] === "machine";
    context.fillStyle = (isMachine ? palette.machine : palette.human)[shadeOf(note.velocity)];
    const x = time(note.start) * scale, y = (height * (highest - note.pitch)) / (highest - lowest);
    context.fillRect(x, y, Math.max(1, (time(note.end) - time(note.start)) * scale), 2);
  }
  if (share > 0) {
    context.fillStyle = palette.ink;
    context.fillRect(Math.min(1, share) * width, 0, 1, height);
  }
}
