import assert from "node:assert/strict";
import { test } from "node:test";

import { readMidi } from "../../../perceivers_live/page/static/midifile.js";

/** @param {number[]} track @param {number} perBeat */
function file(track, perBeat = 480) {
  const body = [...track, 0, 0xff, 0x2f, 0];
  return new Uint8Array([
    ..."MThd".split("").map((one) => one.charCodeAt(0)), 0, 0, 0, 6, 0, 1, 0, 1, perBeat >> 8, perBeat & 255,
    ..."MTrk".split("").map((one) => one.charCodeAt(0)), 0, 0, body.length >> 8, body.length & 255, ...body,
  ]);
}

test("note times are converted to seconds by the tempo", () => {
  const tempo = [0, 0xff, 0x51, 3, 0x07, 0x53, 0x00]; // 480,000 microseconds a beat: a tick is a millisecond
  const { notes } = readMidi(file([...tempo, 0, 0x90, 60, 80, 0x83, 0x60, 0x80, 60, 0]));
  assert.deepEqual(notes, [{ pitch: 60, velocity: 80, start: 0, end: 0.48, track: 0 }]);
});

test("running status, note-ons of velocity 0 and track names are read", () => {
  const { notes, tracks } = readMidi(file([0, 0xff, 3, 2, 0x68, 0x69, 0, 0x90, 60, 80, 96, 62, 80, 96, 60, 0, 96, 62, 0]));
  assert.deepEqual(notes.map((note) => note.pitch), [60, 62]);
  assert.ok(notes.every((note) => note.end > note.start));
  assert.deepEqual(tracks, ["hi"]);
});

test("a note that is never released ends with the file", () => {
  const { notes, length } = readMidi(file([0, 0x90, 60, 80, 96, 0xb0, 64, 127]));
  assert.equal(notes[0].end, length);
});

test("invalid MIDI files are refused", () => {
  for (const bytes of [[], [1, 2, 3, 4], [...file([0, 0x90, 60])], [...file([0x80, 0x80, 0x80, 0x80, 0x80])], [...file([0, 60, 60])]]) {
    assert.throws(() => readMidi(new Uint8Array(bytes.slice(0, -4))), Error);
  }
  assert.throws(() => readMidi(file([], 0x8000 + 25)), /beats/);
});

test("damaged bytes cause at most an error", () => {
  const whole = file([0, 0x90, 60, 80, 96, 0x80, 60, 0, 0, 0xff, 0x51, 3, 7, 0x53, 0]);
  for (let at = 0; at < whole.length; at++) {
    for (const byte of [0, 0x7f, 0xff]) {
      const damaged = new Uint8Array(whole);
      damaged[at] = byte;
      try {
        assert.ok(Number.isFinite(readMidi(damaged).length));
      } catch (error) {
        assert.ok(error instanceof Error && error.message.length < 100);
      }
    }
  }
});
