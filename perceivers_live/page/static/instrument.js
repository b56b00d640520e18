// Notes played on this page with the computer keyboard, mouse, touch or a MIDI keyboard. They sound immediately, and are sent to the
// daemon with the time at which they were played.

import { PARTS } from "./sound.js";
import { PEDAL, SEMITONES, Typing } from "./typing.js";
import { pageTime } from "./connection.js";

/** @typedef {import("./connection.js").Connection} Connection */
/** @typedef {import("./sound.js").Sound} Sound */

/** Whether a message releases a key or the pedal. @param {number[]} message */
function isRelease([status, first, second]) {
  const kind = status & 0xf0;
  return kind === 0x80 || (kind === 0x90 && second === 0) || (kind === 0xb0 && first === 64 && second < 64);
}

export class Instrument {
  /** @param {Connection} connection @param {Sound} sound */
  constructor(connection, sound) {
    this._connection = connection;
    this._sound = sound;
    this.typing = new Typing();
    /** Whether the daemon's input is the page. */
    this.isInput = false;
    /** Whether the daemon sends what is played here back to this page, so that it would sound twice. */
    this.comesBack = false;
    addEventListener("blur", () => this._releaseAll());
    document.addEventListener("visibilitychange", () => document.hidden && this._releaseAll());
  }

  /** A raw message, played at `at` on the page's clock. @param {number[]} message @param {number} at seconds */
  play(message, at) {
    if (!this.isInput) { // what was held when another input was chosen is still released here
      if (isRelease(message)) this._sound.play(PARTS.human, message);
      return;
    }
    if (!this.comesBack || isRelease(message)) this._hear(message);
    else if (this._sound.isWanted && !this._sound.isOn) this._sound.start();
    this._connection.send({ type: "midi", time: this._connection.at(at) ?? 0, message });
  }

  /** @param {number[]} message */
  _hear(message) {
    if (this._sound.isOn) this._sound.play(PARTS.human, message);
    else if (this._sound.isWanted) this._sound.start().then(() => this._sound.play(PARTS.human, message));
  }

  /** Whether this is the press, or a repetition, of a key of the computer keyboard that plays. @param {KeyboardEvent} event */
  plays(event) {
    return this.isInput && !event.ctrlKey && !event.metaKey && (event.code === PEDAL || SEMITONES.has(event.code));
  }

  /** @param {KeyboardEvent} event */
  keyDown(event) {
    const played = this.typing.press(event.code, { shift: event.shiftKey, alt: event.altKey });
    if (played) this._typed(played, event.timeStamp / 1000);
  }

  /** @param {KeyboardEvent} event */
  keyUp(event) {
    if (event.key === "Meta") this._releaseAll(); // macOS reports no other key that was released meanwhile
    const played = this.typing.release(event.code);
    if (played) this._typed(played, event.timeStamp / 1000);
  }

  /** @param {import("./typing.js").Played} played @param {number} at */
  _typed(played, at) {
    if (played.kind === "on") this.play([0x90, played.pitch, played.velocity], at);
    else if (played.kind === "off") this.play([0x80, played.pitch, 64], at);
    else this.play([0xb0, 64, played.down ? 127 : 0], at);
  }

  _releaseAll() {
    for (const played of this.typing.releaseAll()) this._typed(played, pageTime());
  }
}
