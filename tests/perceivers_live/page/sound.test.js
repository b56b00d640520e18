import assert from "node:assert/strict";
import { test } from "node:test";

import { Sound } from "../../../perceivers_live/page/static/sound.js";

/** Messages to the piano. @type {any[]} */
const posted = [];
let faults = 0;
let open = 0; // audio contexts that are not closed

class Node {
  constructor() {
    this.port = { postMessage: (/** @type {any} */ message) => posted.push(message) };
  }

  connect(/** @type {any} */ next) {
    return next;
  }
}

class Context {
  constructor() {
    open++;
    this.state = "running";
    this.sampleRate = 8000;
    this.currentTime = 0;
    this.audioWorklet = { addModule: () => new Promise((resolve, reject) => setTimeout(() => faults-- > 0 ? reject(new Error("no module")) : resolve(null), 20)) };
  }

  createBuffer(/** @type {number} */ _channels, /** @type {number} */ length) {
    return { getChannelData: () => new Float32Array(length) };
  }

  async resume() {}

  async close() {
    open--;
  }
}

const audio = { AudioContext: Context, AudioWorkletNode: Node, GainNode: Node, ConvolverNode: Node, DynamicsCompressorNode: Node, AnalyserNode: Node };
Object.assign(globalThis, audio);

test("a key tapped while the sound is set up is released", async () => {
  const sound = new Sound(() => {});
  /** @param {number[]} message */
  const play = (message) => sound.start().then(() => sound.play(0, message));
  await Promise.all([play([0x90, 60, 80]), play([0x80, 60, 64])]);
  assert.deepEqual(posted.map(([, , message]) => message), [[0x90, 60, 80], [0x80, 60, 64]]);
});

test("messages of the machine keep their order, whatever the clock says", async () => {
  const sound = new Sound(() => {});
  await sound.start();
  posted.length = 0;
  sound.playSent([0x80, 60, 64], 0.001);
  sound.playSent([0x90, 60, 80], 0.0012); // handled a little later, at the same time of the audio clock
  sound.playSent([0x90, 64, 80], 0);
  const times = posted.map(([time]) => time);
  assert.deepEqual(posted.map(([, , message]) => message), [[0x80, 60, 64], [0x90, 60, 80], [0x90, 64, 80]]);
  assert.ok(times[0] <= times[1] && times[1] <= times[2]);
});

test("after a failure the next start tries again", async () => {
  faults = 1;
  open = 0;
  const sound = new Sound(() => {});
  await sound.start();
  assert.equal(sound.isOn, false);
  assert.match(sound.fault, /no module/);
  assert.equal(open, 0);
  await sound.start();
  assert.equal(sound.isOn, true);
  assert.equal(sound.fault, "");
  assert.equal(open, 1);
});

test("without https, on another computer, no audio context is made", async () => {
  open = 0;
  Object.assign(globalThis, { AudioWorkletNode: undefined });
  const sound = new Sound(() => {});
  await sound.start();
  await sound.start();
  Object.assign(globalThis, audio);
  assert.match(sound.fault, /https/);
  assert.equal(open, 0);
});
