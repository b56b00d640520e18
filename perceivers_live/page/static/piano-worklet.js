// Runs the piano on the audio thread. Receives [time on the audio clock, part, raw MIDI message] and plays each at its exact sample.

import { Piano } from "./piano.js";

class PianoProcessor extends AudioWorkletProcessor {
  constructor() {
    super();
    this._piano = new Piano(sampleRate);
    /** @type {[time: number, part: number, message: number[]][]} in time order */
    this._waiting = [];
    this.port.onmessage = (event) => this._add(event.data);
  }

  /** @param {[number, number, number[]] | null} item null: drop what waits, release everything */
  _add(item) {
    if (item === null) {
      this._waiting = [];
      for (const part of [0, 1, 2]) this._piano.releaseAll(part);
      return;
    }
    const at = this._waiting.findIndex((one) => one[0] > item[0]);
    this._waiting.splice(at < 0 ? this._waiting.length : at, 0, item);
  }

  /** @param {Float32Array[][]} _inputs @param {Float32Array[][]} outputs @returns {boolean} */
  process(_inputs, outputs) {
    const [left, right] = outputs[0];
    let done = 0;
    while (this._waiting.length && this._waiting[0][0] < currentTime + left.length / sampleRate) {
      const [time, part, message] = /** @type {[number, number, number[]]} */ (this._waiting.shift());
      const sample = Math.max(done, Math.min(left.length, Math.round((time - currentTime) * sampleRate)));
      this._piano.render(left, right, done, sample);
      this._piano.play(part, message);
      done = sample;
    }
    this._piano.render(left, right, done, left.length);
    return true;
  }
}

registerProcessor("piano", PianoProcessor);
