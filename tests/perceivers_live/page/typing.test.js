import assert from "node:assert/strict";
import { test } from "node:test";

import { PEDAL, SEMITONES, Typing } from "../../../perceivers_live/page/static/typing.js";

const plain = { shift: false, alt: false };

test("the lower row begins at C3, the upper an octave above", () => {
  const typing = new Typing();
  assert.deepEqual(typing.press("KeyZ", plain), { kind: "on", pitch: 48, velocity: 76 });
  assert.equal(/** @type {any} */ (typing.press("KeyQ", plain)).pitch, 60);
});

test("the two rows cover two octaves without a gap", () => {
  const reached = new Set(SEMITONES.values());
  for (let semitone = 0; semitone <= 24; semitone++) assert.ok(reached.has(semitone), `semitone ${semitone}`);
});

test("shift is louder, alt softer", () => {
  const velocity = (/** @type {{shift: boolean, alt: boolean}} */ held) => /** @type {any} */ (new Typing().press("KeyZ", held)).velocity;
  assert.ok(velocity({ shift: true, alt: false }) > velocity(plain));
  assert.ok(velocity({ shift: false, alt: true }) < velocity(plain));
});

test("key repeat plays one note", () => {
  const typing = new Typing();
  typing.press("KeyZ", plain);
  assert.equal(typing.press("KeyZ", plain), null);
});

test("two keys of one pitch are one note, released by the last", () => {
  const typing = new Typing();
  typing.press("Comma", plain);
  assert.equal(typing.press("KeyQ", plain), null);
  assert.equal(typing.release("Comma"), null);
  assert.deepEqual(typing.release("KeyQ"), { kind: "off", pitch: 60 });
});

test("a key pressed before an octave change releases its original pitch", () => {
  const typing = new Typing();
  typing.press("KeyZ", plain);
  typing.shift(1);
  assert.deepEqual(typing.release("KeyZ"), { kind: "off", pitch: 48 });
});

test("losing the keyboard focus releases everything", () => {
  const typing = new Typing();
  typing.press("KeyZ", plain);
  typing.press(PEDAL, plain);
  assert.deepEqual(typing.releaseAll(), [{ kind: "off", pitch: 48 }, { kind: "pedal", down: false }]);
  assert.equal(typing.release("KeyZ"), null);
});

test("octaves stay within the piano", () => {
  const typing = new Typing();
  for (let i = 0; i < 20; i++) typing.shift(1);
  assert.ok(typing.base + 31 < 128);
  for (let i = 0; i < 20; i++) typing.shift(-1);
  assert.ok(typing.base >= 0);
});
