import assert from "node:assert/strict";
import { test } from "node:test";

import { Piano, frequencyOf, partialsOf } from "../../../perceivers_live/page/static/piano.js";

const RATE = 24000;

/** @param {(piano: Piano) => void} begin @param {number} seconds @param {Piano} [piano] */
function sound(begin, seconds, piano = new Piano(RATE)) {
  const length = Math.round(seconds * RATE);
  const left = new Float32Array(length), right = new Float32Array(length);
  begin(piano);
  piano.render(left, right, 0, length);
  return { left, right, piano };
}

/** @param {Float32Array} samples */
function loudness(samples) {
  return Math.sqrt(samples.reduce((sum, one) => sum + one * one, 0) / samples.length);
}

/** The strength of a frequency. @param {Float32Array} samples @param {number} frequency */
function strength(samples, frequency) {
  let re = 0, im = 0;
  samples.forEach((one, n) => {
    re += one * Math.cos((2 * Math.PI * frequency * n) / RATE);
    im += one * Math.sin((2 * Math.PI * frequency * n) / RATE);
  });
  return Math.hypot(re, im) / samples.length;
}

/** @param {number} pitch @param {number} velocity */
function brightness(pitch, velocity) {
  const partials = partialsOf(pitch, velocity);
  const sum = (/** @type {(one: {frequency: number, amplitude: number}) => number} */ of) => partials.reduce((total, one) => total + of(one), 0);
  return sum((one) => one.frequency * one.amplitude) / sum((one) => one.amplitude);
}

test("a key sounds at its pitch", () => {
  const { left } = sound((piano) => piano.strike(0, 69, 80), 0.5);
  assert.equal(frequencyOf(69), 440);
  assert.ok(strength(left, 440) > 20 * strength(left, 466));
});

test("a higher velocity is louder and brighter", () => {
  const [soft, hard] = [30, 110].map((velocity) => loudness(sound((piano) => piano.strike(0, 60, velocity), 0.3).left));
  assert.ok(hard > 3 * soft);
  assert.ok(brightness(60, 110) > 1.3 * brightness(60, 30));
});

test("partials are stretched, and the higher ones decay faster", () => {
  const partials = partialsOf(40, 100).filter((_, i) => i >= 14); // the lowest ones come in pairs
  const base = frequencyOf(40);
  assert.ok(partials.every((one, i) => i === 0 || one.rate > partials[i - 1].rate));
  assert.ok(partials.every((one, i) => one.frequency > (i + 8) * base));
});

test("a high string fades sooner than a low one", () => {
  const rest = (/** @type {number} */ pitch) => {
    const { left } = sound((piano) => piano.strike(0, pitch, 80), 2);
    return loudness(left.subarray(-RATE / 4)) / loudness(left.subarray(0, RATE / 4));
  };
  assert.ok(rest(96) < rest(60) && rest(60) < rest(36));
});

test("a release ends the note, or with the pedal down, the release of the pedal does", () => {
  const after = (/** @type {(piano: Piano) => void} */ end) => {
    const { piano } = sound((made) => made.strike(0, 60, 80), 0.3);
    return loudness(sound(end, 1, piano).left.subarray(RATE / 2));
  };
  const held = after(() => {});
  const released = after((piano) => piano.release(0, 60));
  const pedalled = after((piano) => { piano.pedal(0, true); piano.release(0, 60); });
  const lifted = after((piano) => { piano.pedal(0, true); piano.release(0, 60); piano.pedal(0, false); });
  assert.ok(released < held / 20 && lifted < held / 20);
  assert.ok(pedalled > held / 2);
});

test("a pedal held by the other part still holds", () => {
  const piano = new Piano(RATE);
  piano.strike(0, 60, 80);
  piano.pedal(0, true);
  piano.pedal(1, true);
  piano.release(0, 60);
  piano.pedal(0, false);
  assert.ok(loudness(sound(() => {}, 1, piano).left.subarray(RATE / 2)) > 0.001);
});

test("the release of one part does not end the note of another on the same key", () => {
  const after = (/** @type {number} */ part) => {
    const piano = new Piano(RATE);
    piano.play(1, [0x90, 60, 80]);
    piano.play(0, [0x90, 60, 80]); // the human strikes the key that the machine holds
    piano.play(part, [0x80, 60, 64]);
    return loudness(sound(() => {}, 1, piano).left.subarray(RATE / 2));
  };
  assert.ok(after(1) > 20 * after(0));
});

test("faded voices are removed", () => {
  const { piano } = sound((made) => { made.strike(0, 60, 80); made.release(0, 60); }, 4);
  assert.equal(piano.voices, 0);
});

test("many notes stay finite and within the limit of voices", () => {
  const piano = new Piano(RATE);
  for (let i = 0; i < 300; i++) sound(() => { piano.strike(0, 21 + ((i * 7) % 88), 127); piano.release(0, 21 + ((i * 7) % 88)); }, 0.02, piano);
  const { left } = sound(() => {}, 0.5, piano);
  assert.ok(left.every(Number.isFinite));
  assert.ok(piano.voices < 120);
});

test("raw MIDI is played, and a note-on of velocity 0 is a note-off", () => {
  const piano = new Piano(RATE);
  piano.play(0, [0x90, 60, 80]);
  assert.equal(piano.voices, 1);
  piano.play(0, [0x90, 60, 0]);
  sound(() => {}, 2, piano);
  assert.equal(piano.voices, 0);
});
