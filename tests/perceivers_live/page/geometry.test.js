import assert from "node:assert/strict";
import { test } from "node:test";

import { keyAt, keys, pitchName, pitchY, stage, timeX, touchVelocity } from "../../../perceivers_live/page/static/geometry.js";

test("the past is left of the now line, the future on the other side of the keys", () => {
  const view = stage(1000, 500);
  assert.equal(timeX(view, 10, 10), view.nowX);
  assert.equal(timeX(view, 9, 10), view.nowX - view.perSecond);
  assert.ok(timeX(view, 10.001, 10) > view.planX);
});

test("every piano key has a row, the highest on top", () => {
  const view = stage(1000, 880);
  assert.equal(pitchY(view, 108), 0);
  assert.equal(pitchY(view, 21) + view.row, 880);
});

test("keyAt finds each of the 88 keys where it is drawn", () => {
  const all = keys(880, 100, 21, 108);
  assert.equal(all.length, 88);
  assert.equal(all.filter((key) => key.black).length, 36);
  for (const key of all) {
    const y = key.black ? key.height / 2 : 90;
    assert.equal(keyAt(all, key.x + key.width / 2, y)?.pitch, key.pitch);
  }
  assert.equal(keyAt(all, -5, 10), null);
});

test("touching a key further down gives a higher velocity, always within 1 to 127", () => {
  const [key] = keys(880, 100, 21, 108);
  assert.ok(touchVelocity(key, 10) < touchVelocity(key, 90));
  for (const y of [-50, 0, 100, 500]) assert.ok(touchVelocity(key, y) >= 1 && touchVelocity(key, y) <= 127);
});

test("middle C is C4", () => {
  assert.deepEqual([pitchName(60), pitchName(21), pitchName(70)], ["C4", "A0", "B♭4"]);
});
