import assert from "node:assert/strict";
import { test } from "node:test";

import { title, valueText } from "../../../perceivers_live/page/static/panel.js";
import { statusLine } from "../../../perceivers_live/page/static/status.js";

/** @type {import("../../../perceivers_live/page/static/status.js").Situation} */
const idle = {
  isConnected: true, turn: "listening", countdown: null, mode: "respond", hold: false, isStopped: false, missingInput: "", humanPlays: false, everPlayed: false,
  canPlayHere: true, now: 100,
};

test("the status line shows whose turn it is", () => {
  assert.equal(statusLine({ ...idle, isConnected: false }).kind, "away");
  assert.equal(statusLine({ ...idle, turn: "playing" }).kind, "machine");
  assert.equal(statusLine({ ...idle, turn: "playing", humanPlays: true }).kind, "both");
  assert.equal(statusLine({ ...idle, humanPlays: true }).kind, "human");
  assert.equal(statusLine(idle).kind, "idle");
});

test("the status line counts down to the reply", () => {
  assert.equal(statusLine({ ...idle, countdown: 101.25 }).text, "Replies in 1.3 s");
  assert.equal(statusLine({ ...idle, countdown: 99 }).kind, "idle");
});

test("no countdown is shown on hold or in listen mode", () => {
  assert.match(statusLine({ ...idle, countdown: 101, hold: true }).text, /hold/);
  assert.match(statusLine({ ...idle, countdown: 101, mode: "listen" }).text, /listens/);
});

test("the status line says why no reply will come", () => {
  assert.equal(statusLine({ ...idle, missingInput: "Piano" }).text, "Waiting for Piano");
  assert.match(statusLine({ ...idle, countdown: 101, isStopped: true }).text, /Stopped by the clock/);
  assert.equal(statusLine({ ...idle, turn: "playing", missingInput: "Piano" }).kind, "machine");
});

test("values are shown in their units", () => {
  /** @type {import("../../../perceivers_live/page/static/messages.js").Control} */
  const control = { name: "x", kind: "float", group: "", value: 0, default: 0, low: 0, high: 2, choices: [], unit: "", help: "" };
  assert.equal(valueText(control, 1), "1.00");
  assert.equal(valueText({ ...control, kind: "int", unit: "MIDI note", high: 127 }, 60), "C4");
  assert.equal(valueText({ ...control, name: "seed", kind: "int" }, -1), "random");
  assert.equal(valueText({ ...control, kind: "int", unit: "ms", high: 2000 }, 400), "400 ms");
  assert.equal(title("lookahead_ms"), "Lookahead");
  assert.equal(title("register_low"), "Register low");
});
