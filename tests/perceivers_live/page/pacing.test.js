import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { Pacing } from "../../../perceivers_live/page/static/pacing.js";

let now = 0; // milliseconds

/** A pacing and what it passed on. Only `pass` moves its clock and its timers. */
function made() {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  /** @type {[number[], number][]} */
  const played = [];
  return { pacing: new Pacing((message, at) => played.push([message, at]), () => now), played };
}

/** @param {number} milliseconds */
function pass(milliseconds) {
  for (let n = 0; n < milliseconds; n++) {
    now += 1;
    mock.timers.tick(1); // a larger step would run only one of several timers in a row
  }
}

test("five fingers of an MPE keyboard stay below 250 messages a second, and end at the newest values", () => {
  const { pacing, played } = made();
  for (let n = 0; n < 100; n++) {
    for (let channel = 1; channel <= 5; channel++) {
      for (const message of [[0xe0 | channel, 0, n], [0xd0 | channel, n], [0xb0 | channel, 74, n]]) pacing.feed(message, n);
    }
    pass(10);
  }
  assert.ok(played.length < 250, `${played.length}`);
  pass(200);
  for (let channel = 1; channel <= 5; channel++) {
    const newest = played.filter(([[status]]) => (status & 0x0f) === channel).map(([message]) => message);
    for (const kind of [0xe0, 0xd0, 0xb0]) assert.equal(newest.findLast(([status]) => (status & 0xf0) === kind)?.at(-1), 99);
  }
});

test("a single wheel loses nothing at a usual rate", () => {
  const { pacing, played } = made();
  for (let n = 0; n < 50; n++) {
    pacing.feed([0xe0, 0, n], n);
    pass(10);
  }
  assert.deepEqual(played.map(([message]) => message[2]), [...Array(50).keys()]);
});

test("notes and pedals are passed on at once, after the wheels of their channel", () => {
  const { pacing, played } = made();
  pacing.feed([0xe1, 0, 10], 1);
  pacing.feed([0xe1, 0, 20], 2);
  pacing.feed([0xe2, 0, 30], 3);
  pacing.feed([0x91, 60, 80], 4);
  pacing.feed([0xb1, 64, 127], 5);
  assert.deepEqual(played.map(([, at]) => at), [1, 2, 4, 5]);
  pass(100);
  assert.deepEqual(played.at(-1), [[0xe2, 0, 30], 3]);
  assert.equal(played.length, 5);
});

test("what waits can be passed on at once", () => {
  const { pacing, played } = made();
  pacing.feed([0xe0, 0, 10], 1);
  pacing.feed([0xe0, 0, 20], 2);
  pacing.feed([0xe1, 0, 30], 3);
  pacing.flush();
  pass(100);
  assert.deepEqual(played.map(([, at]) => at), [1, 2, 3]);
});

test("values arrive in time though the browser stops the timers of a hidden tab", () => {
  const { pacing, played } = made();
  for (let n = 0; n < 100; n++) {
    now += 10; // the timers do not run
    pacing.feed([0xe0, 0, n], n);
    pacing.feed([0xb0, 1, n], n);
  }
  assert.ok(played.length > 150);
});
