// The computer keyboard as a piano of 32 keys, by physical key position, independent of the layout. The lower two rows of letters
// and the upper two, of letters and digits, overlap by five keys.

const LOWER = ["KeyZ", "KeyS", "KeyX", "KeyD", "KeyC", "KeyV", "KeyG", "KeyB", "KeyH", "KeyN", "KeyJ", "KeyM"];
const LOWER_MORE = ["Comma", "KeyL", "Period", "Semicolon", "Slash"];
const UPPER = ["KeyQ", "Digit2", "KeyW", "Digit3", "KeyE", "KeyR", "Digit5", "KeyT", "Digit6", "KeyY", "Digit7", "KeyU"];
const UPPER_MORE = ["KeyI", "Digit9", "KeyO", "Digit0", "KeyP", "BracketLeft", "Equal", "BracketRight"];

/** Semitones above the lowest key, by a key's place (`KeyboardEvent.code`). @type {ReadonlyMap<string, number>} */
export const SEMITONES = new Map([
  ...[...LOWER, ...LOWER_MORE].map((code, i) => /** @type {[string, number]} */ ([code, i])),
  ...[...UPPER, ...UPPER_MORE].map((code, i) => /** @type {[string, number]} */ ([code, 12 + i])),
]);

export const PEDAL = "ArrowDown";
const SOFT = 52, NORMAL = 76, LOUD = 104;
const LOWEST_BASE = 24, HIGHEST_BASE = 84;

/** @typedef {{kind: "on", pitch: number, velocity: number} | {kind: "off", pitch: number} | {kind: "pedal", down: boolean}} Played */

/** Converts key presses to notes. Keeps the keys that are down, so that every note-on gets its note-off. */
export class Typing {
  constructor() {
    /** Pitch of the lowest key. */
    this.base = 48;
    /** @type {Map<string, number>} code -> pitch, as it was struck */
    this._down = new Map();
    this._pedal = false;
  }

  /** @param {string} code @param {{shift: boolean, alt: boolean}} held @returns {Played | null} */
  press(code, held) {
    if (code === PEDAL && !this._pedal) {
      this._pedal = true;
      return { kind: "pedal", down: true };
    }
    const semitones = SEMITONES.get(code);
    if (semitones === undefined || this._down.has(code)) return null;
    const pitch = this.base + semitones;
    const isDown = [...this._down.values()].includes(pitch);
    this._down.set(code, pitch);
    return isDown ? null : { kind: "on", pitch, velocity: held.shift ? LOUD : held.alt ? SOFT : NORMAL };
  }

  /** @param {string} code @returns {Played | null} */
  release(code) {
    if (code === PEDAL && this._pedal) {
      this._pedal = false;
      return { kind: "pedal", down: false };
    }
    const pitch = this._down.get(code);
    if (pitch === undefined) return null;
    this._down.delete(code);
    return [...this._down.values()].includes(pitch) ? null : { kind: "off", pitch };
  }

  /** Releases all keys, when the window loses focus. @returns {Played[]} */
  releaseAll() {
    /** @type {Played[]} */
    const released = [...new Set(this._down.values())].map((pitch) => ({ kind: "off", pitch }));
    if (this._pedal) released.push({ kind: "pedal", down: false });
    this._down.clear();
    this._pedal = false;
    return released;
  }

  /** @param {number} octaves */
  shift(octaves) {
    this.base = Math.max(LOWEST_BASE, Math.min(HIGHEST_BASE, this.base + 12 * octaves));
  }

  /** What is to be pressed for a pitch: codes. @param {number} pitch @returns {string[]} */
  codesFor(pitch) {
    return [...SEMITONES].filter(([, semitones]) => this.base + semitones === pitch).map(([code]) => code);
  }
}
