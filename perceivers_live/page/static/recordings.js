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
function squeezed(recording) {
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

/** A recording as it is drawn and played: with long silences shortened. @param {Recording} recording */
export function loaded(recording) {
  const time = squeezed(recording);
  return {
    length: time(recording.length),
    events: recording.events.map(({ time: at, message }) => ({ at: time(at), message })),
    notes: recording.notes.map((note) => ({ ...note, start: time(note.start), end: time(note.end) })),
    tracks: recording.tracks,
  };
}

/** @typedef {ReturnType<typeof loaded>} Loaded */
/** @typedef {{element: HTMLElement, draw: () => void}} Item */

export class Recordings {
  /** @param {HTMLElement} where @param {Sound} sound */
  constructor(where, sound) {
    this._sound = sound;
    this._list = element("ul", { class: "recordings" });
    this._none = element("p", { class: "empty" }, "No recordings yet. Every session in which a note is played becomes one.");
    where.replaceChildren(this._none, this._list);
    /** @type {Map<string, Item>} by name; a recording does not change */
    this._items = new Map();
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
    this._items = new Map(found.map(({ name }) => [name, this._items.get(name) ?? this._item(name)]));
    this._list.replaceChildren(...[...this._items.values()].map((one) => one.element));
  }

  /** Draws the recordings again, in other colours. */
  draw() {
    for (const { draw } of this._items.values()) draw();
  }

  /** Stops playback. */
  stop() {
    this._turn++;
    clearInterval(this._timer);
    this._sound.silence();
    this._stopped?.();
    this._stopped = null;
  }

  /** @param {string} name @returns {Item} */
  _item(name) {
    const canvas = element("canvas", { "aria-hidden": "true" });
    const play = element("button", { type: "button" }, "Play");
    const link = element("a", { href: `/recordings/${encodeURIComponent(name)}.mid`, download: `${name}.mid` }, "Download");
    const about = element("span", { class: "about" });
    const head = element("div", { class: "head" }, element("strong", {}, recordingTitle(name)), about, play, link);
    const playhead = element("span", { class: "playhead", hidden: true });
    const item = element("li", { "data-recording": name }, head, element("div", { class: "thumb" }, canvas, playhead));
    /** @type {Loaded | null} */
    let recording = null;
    const draw = () => {
      if (recording && canvas.clientWidth > 0) drawRecording(canvas, recording);
    };
    const load = async () => {
      if (recording) return recording;
      const response = await fetch(link.href);
      if (!response.ok) throw new Error((await response.text()).trim());
      recording = loaded(readMidi(new Uint8Array(await response.arrayBuffer())));
      about.textContent = `${recording.notes.length} notes`;
      draw();
      return recording;
    };
    play.addEventListener("click", async () => {
      const wasPlaying = play.textContent === "Stop";
      this.stop();
      const turn = this._turn;
      if (!wasPlaying) await load().then((one) => this._replay(one, play, playhead, turn)).catch((error) => { about.textContent = error.message; });
    });
    const seen = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      seen.disconnect();
      load().catch((error) => { about.textContent = error.message; });
    });
    seen.observe(item);
    new ResizeObserver(draw).observe(canvas); // also when its tab is opened
    return { element: item, draw };
  }

  /** @param {Loaded} recording @param {HTMLButtonElement} button @param {HTMLElement} playhead @param {number} turn */
  async _replay(recording, button, playhead, turn) {
    await this._sound.switch(true);
    if (turn !== this._turn) return;
    if (!this._sound.isOn) throw new Error(this._sound.fault || "no sound: the browser has not permitted it");
    const { events, length } = recording;
    const began = performance.now() / 1000 + 0.1;
    let next = 0;
    button.textContent = "Stop";
    playhead.hidden = false;
    this._stopped = () => {
      button.textContent = "Play";
      playhead.hidden = true;
    };
    this._timer = setInterval(() => {
      const now = performance.now() / 1000 - began;
      for (; next < events.length && events[next].at < now + AHEAD; next++) {
        this._sound.playAt(PARTS.replay, events[next].message, events[next].at - now);
      }
      playhead.style.left = `${100 * Math.min(1, Math.max(0, now / Math.max(length, 1)))}%`;
      if (now > length + 1) this.stop();
    }, 100);
  }
}

/** @param {HTMLCanvasElement} canvas @param {Loaded} recording */
function drawRecording(canvas, recording) {
  const palette = readPalette();
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = Math.min(devicePixelRatio, 2);
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(ratio, ratio);
  const scale = width / Math.max(recording.length, 1);
  const pitches = recording.notes.map((note) => note.pitch);
  const lowest = Math.min(...pitches.slice(0, 50000), 60) - 2, highest = Math.max(...pitches.slice(0, 50000), 72) + 2;
  for (const note of recording.notes) {
    const isMachine = recording.tracks[note.track] === "machine";
    context.fillStyle = (isMachine ? palette.machine : palette.human)[shadeOf(note.velocity)];
    const x = note.start * scale, y = (height * (highest - note.pitch)) / (highest - lowest);
    context.fillRect(x, y, Math.max(1, (note.end - note.start) * scale), 2);
  }
}
