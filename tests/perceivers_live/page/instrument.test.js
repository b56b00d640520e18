import assert from "node:assert/strict";
import { test } from "node:test";

Object.assign(globalThis, { addEventListener: () => {}, document: { addEventListener: () => {} } });
const { Instrument } = await import("../../../perceivers_live/page/static/instrument.js");

/** An instrument, what it sends to the daemon and what sounds on the page. */
function made() {
  /** @type {number[][]} */
  const sent = [], sounded = [];
  const connection = { at: (/** @type {number} */ time) => time, send: (/** @type {any} */ { message }) => sent.push(message) };
  const sound = { isOn: true, isWanted: true, starts: 0, start: async () => { sound.starts++; }, play: (/** @type {number} */ _part, /** @type {number[]} */ message) => sounded.push(message) };
  const instrument = new Instrument(/** @type {any} */ (connection), /** @type {any} */ (sound));
  instrument.isInput = true;
  return { instrument, sent, sounded, sound };
}

test("what is held when another input is chosen is released on the page's piano only", () => {
  const { instrument, sent, sounded } = made();
  const held = [[0x90, 60, 80], [0xb0, 64, 127]], releases = [[0x80, 60, 0], [0xb0, 64, 0]];
  for (const message of held) instrument.play(message, 0);
  instrument.isInput = false;
  for (const message of [...releases, [0x90, 62, 80], [0xb0, 64, 127]]) instrument.play(message, 0);
  assert.deepEqual(sounded, [...held, ...releases]);
  assert.deepEqual(sent, held);
});

test("only keys of the piano are taken from the browser, and only while the page is the input", () => {
  const { instrument } = made();
  const key = (/** @type {object} */ event) => instrument.plays(/** @type {any} */ ({ ctrlKey: false, metaKey: false, ...event }));
  assert.ok(key({ code: "KeyD", altKey: true, repeat: true }));
  assert.ok(key({ code: "ArrowDown" }));
  assert.ok(!key({ code: "F5" }));
  assert.ok(!key({ code: "KeyD", ctrlKey: true }));
  instrument.isInput = false;
  assert.ok(!key({ code: "KeyD" }));
});

test("what the daemon sends back does not sound twice, and nothing hangs when that changes", () => {
  const { instrument, sent, sounded } = made();
  instrument.play([0x90, 60, 80], 0);
  instrument.comesBack = true;
  const messages = [[0x80, 60, 64], [0x90, 62, 80], [0x80, 62, 64]];
  for (const message of messages) instrument.play(message, 0);
  assert.deepEqual(sounded, [[0x90, 60, 80], [0x80, 60, 64], [0x80, 62, 64]]);
  assert.deepEqual(sent, [[0x90, 60, 80], ...messages]);
});

test("playing starts the sound, also if the notes come back from the daemon", () => {
  const { instrument, sound } = made();
  sound.isOn = false;
  instrument.comesBack = true;
  instrument.play([0x90, 60, 80], 0);
  assert.equal(sound.starts, 1);
});

test("keys held while the command key of macOS is down are released with it", () => {
  const { instrument, sent } = made();
  const event = (/** @type {object} */ given) => /** @type {any} */ ({ timeStamp: 0, shiftKey: false, altKey: false, ...given });
  instrument.keyDown(event({ code: "KeyD", key: "d" }));
  instrument.keyUp(event({ code: "MetaLeft", key: "Meta" }));
  assert.equal(sent.length, 2);
  assert.deepEqual(sent[1], [0x80, sent[0][1], 64]);
});
