import assert from "node:assert/strict";
import { test } from "node:test";

import { Music } from "../../../perceivers_live/page/static/music.js";

function planned() {
  const music = new Music(10);
  music.planned([
    [1, 5.0, "on", 60, 80],
    [2, 5.2, "off", 60, 0],
    [3, 5.4, "on", 62, 80],
    [4, 5.6, "off", 62, 0],
  ]);
  return music;
}

test("a note sounds from its note-on to its note-off", () => {
  const music = new Music(10);
  music.played("human", [[1, "on", 60, 80]]);
  assert.deepEqual([...music.sounding()], [[60, "human"]]);
  music.played("human", [[2, "off", 60, 0]]);
  assert.equal(music.sounding().size, 0);
  assert.deepEqual(music.notes, [{ part: "human", pitch: 60, velocity: 80, start: 1, end: 2 }]);
});

test("the release of one part does not end the other's note", () => {
  const music = new Music(10);
  music.played("human", [[1, "on", 60, 80]]);
  music.played("machine", [[1.5, "off", 60, 0]]);
  assert.deepEqual([...music.sounding()], [[60, "human"]]);
});

test("sounded notes leave the plan", () => {
  const music = planned();
  music.played("machine", [[5.0, "on", 60, 80]]);
  assert.deepEqual(music.plan.map((note) => note.pitch), [62]);
});

test("dropped notes stay visible for a moment and are then removed", () => {
  const music = planned();
  music.drop(3, 5.1);
  assert.deepEqual(music.plan.map((note) => [note.pitch, note.end]), [[60, 5.2]]);
  assert.deepEqual(music.dropped.map((note) => note.pitch), [62]);
  music.prune(5.2);
  assert.equal(music.dropped.length, 1);
  music.prune(7);
  assert.equal(music.dropped.length, 0);
});

test("dropped notes that are planned again do not count as dropped", () => {
  const music = planned();
  music.drop(1, 4.9);
  music.planned([[1, 5.01, "on", 60, 80]]);
  assert.deepEqual(music.dropped.map((note) => note.pitch), [62]);
});

test("a planned release that is dropped leaves the note's end open", () => {
  const music = planned();
  music.drop(2, 5.1);
  assert.deepEqual(music.plan.map((note) => [note.pitch, note.end]), [[60, null]]);
});

test("silence ends sounding notes and clears the plan", () => {
  const music = planned();
  music.played("machine", [[4, "on", 50, 80], [4, "down", 0, 0]]);
  music.silence(5);
  assert.equal(music.sounding().size, 0);
  assert.equal(music.pedal("machine"), false);
  assert.equal(music.plan.length, 0);
});

test("notes older than the window are removed, sounding notes are kept", () => {
  const music = new Music(10);
  music.played("human", [[0, "on", 60, 80], [1, "off", 60, 0], [2, "on", 61, 80]]);
  music.prune(30);
  assert.deepEqual(music.notes.map((note) => note.pitch), [61]);
});

test("the pedal of each part is tracked", () => {
  const music = new Music(10);
  music.played("human", [[0, "down", 0, 0]]);
  assert.deepEqual([music.pedal("human"), music.pedal("machine")], [true, false]);
  music.played("human", [[1, "up", 0, 0]]);
  assert.equal(music.pedal("human"), false);
});
