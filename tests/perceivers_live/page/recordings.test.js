import assert from "node:assert/strict";
import { test } from "node:test";

import { loaded, recordingTitle } from "../../../perceivers_live/page/static/recordings.js";

test("long silences of a recording are shortened, notes keep their length", () => {
  const note = (/** @type {number} */ start) => ({ pitch: 60, velocity: 80, start, end: start + 1, track: 0 });
  const events = [0, 1, 100, 101].map((time) => ({ time, message: [0x90, 60, 80], track: 0 }));
  const recording = { tracks: ["you"], events, notes: [note(0), note(100)], length: 101 };
  const shown = loaded(recording);
  assert.deepEqual(shown.notes.map(({ start, end }) => [start, end]), [[0, 1], [4, 5]]);
  assert.deepEqual(shown.events.map(({ at }) => at), [0, 1, 4, 5]);
  assert.equal(shown.length, 5);
});

test("the title of a recording is its date", () => {
  assert.equal(recordingTitle("2026-01-31_18-05-09"), "31 Jan 2026, 18:05");
  assert.equal(recordingTitle("2026-01-31_18-05-09_2"), "31 Jan 2026, 18:05 (2)");
  assert.equal(recordingTitle("other"), "other");
});
