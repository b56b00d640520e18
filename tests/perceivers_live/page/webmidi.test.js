import assert from "node:assert/strict";
import { test } from "node:test";

/** Each import is a new copy of the module, as in a newly loaded page. */
let loads = 0;
const freshly = async () => (await import(`../../../perceivers_live/page/static/webmidi.js?${loads++}`)).listenToMidi;

/** @param {string} name @param {string} [state] */
const keyboard = (name, state = "connected") => ({ name, state, onmidimessage: /** @type {any} */ (null) });

/** A browser with these inputs; `request` is called for access. @param {() => Promise<any>} request */
function browser(request) {
  Object.defineProperty(globalThis, "navigator", { value: { requestMIDIAccess: request }, configurable: true });
}

/** A keyboard that the page listens to, what it has played, and a function that unplugs it. */
async function connected() {
  const piano = keyboard("Piano");
  const access = { inputs: new Map([["1", piano]]), onstatechange: /** @type {any} */ (null) };
  browser(async () => access);
  /** @type {number[][]} */
  const played = [];
  await (await freshly())((/** @type {number[]} */ message) => played.push(message), () => {});
  const unplug = () => {
    piano.state = "disconnected";
    access.onstatechange();
  };
  return { piano, played, unplug };
}

test("messages of all keyboards are forwarded with their times in seconds", async () => {
  const [piano, organ] = [keyboard("Piano"), keyboard("Organ")];
  browser(async () => ({ inputs: new Map([["1", piano], ["2", organ]]) }));
  /** @type {[number[], number][]} */
  const played = [];
  /** @type {string[]} */
  let names = [];
  const listenToMidi = await freshly();
  assert.equal(await listenToMidi((/** @type {number[]} */ message, /** @type {number} */ at) => played.push([message, at]), (/** @type {string[]} */ reported) => { names = reported; }), true);
  assert.deepEqual(names, ["Piano", "Organ"]);
  piano.onmidimessage({ data: new Uint8Array([144, 60, 80]), timeStamp: 1500 });
  organ.onmidimessage({ data: new Uint8Array([176, 64, 127]), timeStamp: 1600 });
  assert.deepEqual(played, [[[144, 60, 80], 1.5], [[176, 64, 127], 1.6]]);
});

test("clock, active sensing, SysEx and empty messages are ignored", async () => {
  const piano = keyboard("Piano");
  browser(async () => ({ inputs: new Map([["1", piano]]) }));
  let count = 0;
  await (await freshly())(() => count++, () => {});
  for (const data of [new Uint8Array([0xf8]), new Uint8Array([0xfe]), new Uint8Array([0xf0, 1, 0xf7]), new Uint8Array(), null]) {
    piano.onmidimessage({ data, timeStamp: 0 });
  }
  assert.equal(count, 0);
});

test("a keyboard connected later is received, and an unplugged one is no longer listed", async () => {
  const piano = keyboard("Piano");
  const access = { inputs: new Map([["1", piano]]), onstatechange: /** @type {any} */ (null) };
  browser(async () => access);
  /** @type {string[]} */
  let names = [];
  let count = 0;
  await (await freshly())(() => count++, (/** @type {string[]} */ reported) => { names = reported; });
  const organ = keyboard("Organ");
  access.inputs.set("2", organ);
  piano.state = "disconnected";
  access.onstatechange();
  assert.deepEqual(names, ["Organ"]);
  organ.onmidimessage({ data: new Uint8Array([144, 60, 80]), timeStamp: 0 });
  assert.equal(count, 1);
});

test("held notes of an unplugged keyboard are released", async () => {
  const { piano, played, unplug } = await connected();
  for (const data of [[0x90, 60, 80], [0x90, 62, 80], [0x80, 60, 0], [0xb1, 64, 127]]) piano.onmidimessage({ data, timeStamp: 0 });
  played.length = 0;
  unplug();
  unplug();
  assert.deepEqual(played, [[0x80, 62, 64], [0xb1, 64, 0]]);
});

test("pedals, wheels and pressure of an unplugged keyboard return to rest, volume does not", async () => {
  const { piano, played, unplug } = await connected();
  const messages = [[0xb0, 66, 127], [0xb0, 67, 127], [0xb0, 67, 0], [0xb0, 1, 9], [0xb0, 7, 90], [0xe0, 0, 80], [0xd0, 30], [0xa0, 60, 20]];
  for (const data of messages) piano.onmidimessage({ data, timeStamp: 0 });
  played.length = 0;
  unplug();
  assert.deepEqual(played.slice(-5), [[0xb0, 66, 0], [0xb0, 1, 0], [0xe0, 0, 64], [0xd0, 0], [0xa0, 60, 0]]);
  assert.ok(!played.some(([status, first, second]) => status === 0xb0 && first === 7 && second === 0));
});

test("a second click does not listen to a second copy of the inputs", async () => {
  const pianos = [keyboard("Piano"), keyboard("Piano")];
  let requests = 0;
  browser(async () => ({ inputs: new Map([["1", pianos[requests++]]]) }));
  let count = 0;
  const listenToMidi = await freshly();
  for (let click = 0; click < 2; click++) await listenToMidi(() => count++, () => {});
  for (const piano of pianos) piano.onmidimessage?.({ data: [0x90, 60, 80], timeStamp: 0 });
  assert.equal(count, 1);
});

test("a browser that lacks or refuses MIDI is reported", async () => {
  const listenToMidi = await freshly();
  browser(async () => { throw new Error("denied"); });
  assert.equal(await listenToMidi(() => {}, () => {}), false);
  Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
  assert.equal(await listenToMidi(() => {}, () => {}), false);
});

test("what a keyboard sent last before it was unplugged is passed on before its releases", async () => {
  const { piano, played, unplug } = await connected();
  for (const data of [[0xe0, 0, 20], [0xe0, 0, 64]]) piano.onmidimessage({ data, timeStamp: 0 });
  unplug();
  assert.deepEqual(played.at(-1), [0xe0, 0, 64]);
});
