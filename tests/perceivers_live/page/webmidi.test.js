import assert from "node:assert/strict";
import { test } from "node:test";

import { listenToMidi } from "../../../perceivers_live/page/static/webmidi.js";

/** @param {string} name @param {string} [state] */
const keyboard = (name, state = "connected") => ({ name, state, onmidimessage: /** @type {any} */ (null) });

/** A browser with these inputs; `request` is called for access. @param {() => Promise<any>} request */
function browser(request) {
  Object.defineProperty(globalThis, "navigator", { value: { requestMIDIAccess: request }, configurable: true });
}

test("the messages of every keyboard are passed on with their times in seconds", async () => {
  const [piano, organ] = [keyboard("Piano"), keyboard("Organ")];
  browser(async () => ({ inputs: new Map([["1", piano], ["2", organ]]) }));
  /** @type {[number[], number][]} */
  const played = [];
  /** @type {string[]} */
  let names = [];
  assert.equal(await listenToMidi((message, at) => played.push([message, at]), (told) => { names = told; }), true);
  assert.deepEqual(names, ["Piano", "Organ"]);
  piano.onmidimessage({ data: new Uint8Array([144, 60, 80]), timeStamp: 1500 });
  organ.onmidimessage({ data: new Uint8Array([176, 64, 127]), timeStamp: 1600 });
  assert.deepEqual(played, [[[144, 60, 80], 1.5], [[176, 64, 127], 1.6]]);
});

test("clock, active sensing and empty messages are no playing", async () => {
  const piano = keyboard("Piano");
  browser(async () => ({ inputs: new Map([["1", piano]]) }));
  let count = 0;
  await listenToMidi(() => count++, () => {});
  for (const data of [new Uint8Array([0xf8]), new Uint8Array([0xfe]), new Uint8Array([0xf0, 1, 0xf7]), new Uint8Array(), null]) {
    piano.onmidimessage({ data, timeStamp: 0 });
  }
  assert.equal(count, 0);
});

test("a keyboard that is connected later is heard, one that is unplugged is not named any more", async () => {
  const piano = keyboard("Piano");
  const access = { inputs: new Map([["1", piano]]), onstatechange: /** @type {any} */ (null) };
  browser(async () => access);
  /** @type {string[]} */
  let names = [];
  let count = 0;
  await listenToMidi(() => count++, (told) => { names = told; });
  const organ = keyboard("Organ");
  access.inputs.set("2", organ);
  piano.state = "disconnected";
  access.onstatechange();
  assert.deepEqual(names, ["Organ"]);
  organ.onmidimessage({ data: new Uint8Array([144, 60, 80]), timeStamp: 0 });
  assert.equal(count, 1);
});

test("a browser that has no MIDI, or refuses it, is told of", async () => {
  browser(async () => { throw new Error("denied"); });
  assert.equal(await listenToMidi(() => {}, () => {}), false);
  Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
  assert.equal(await listenToMidi(() => {}, () => {}), false);
});
