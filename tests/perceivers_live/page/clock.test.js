import assert from "node:assert/strict";
import { test } from "node:test";

import { ClockEstimate } from "../../../perceivers_live/page/static/clock.js";

test("the offset is unknown before the first answer", () => {
  assert.equal(new ClockEstimate().offset, null);
});

test("the answer with the shortest round trip determines the offset", () => {
  const clock = new ClockEstimate();
  clock.answer(10, 110.001, 10.002); // offset 100, a millisecond each way
  clock.answer(11, 111.4, 11.41); // 400 ms there, 10 ms back
  assert.ok(Math.abs(/** @type {number} */ (clock.offset) - 100) < 1e-6);
  assert.ok(clock.error < 0.002);
});

test("old answers lose weight, so that clock drift is followed", () => {
  const clock = new ClockEstimate();
  for (let i = 0; i < 200; i++) clock.answer(i * 2, i * 2 * 1.0001 + 50 + 0.001, i * 2 + 0.002);
  assert.ok(Math.abs(/** @type {number} */ (clock.offset) - (50 + 398 * 0.0001)) < 0.004);
});

test("an answer earlier than its request is ignored, and a reset clears the estimate", () => {
  const clock = new ClockEstimate();
  clock.answer(10, 0, 9);
  assert.equal(clock.offset, null);
  clock.answer(1, 5, 1.1);
  clock.reset();
  assert.equal(clock.offset, null);
  assert.equal(clock.error, Infinity);
});
