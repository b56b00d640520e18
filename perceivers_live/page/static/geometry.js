// Positions of notes and keys on the piano roll and on the keyboard. Pure functions.

export const LOWEST = 21; // A0
export const HIGHEST = 108; // C8
const BLACK = new Set([1, 3, 6, 8, 10]);
const NAMES = ["C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B"];

/** @param {number} pitch */
export function isBlack(pitch) {
  return BLACK.has(pitch % 12);
}

/** @param {number} pitch @returns {string} such as "C4" */
export function pitchName(pitch) {
  return `${NAMES[pitch % 12]}${Math.floor(pitch / 12) - 1}`;
}

/**
 * The piano roll: time runs from left to right, with the present at `nowX`; pitch runs from bottom to top.
 * @typedef {object} Stage
 * @property {number} width
 * @property {number} height of the part with the notes
 * @property {number} nowX right edge of the past
 * @property {number} planX left edge of the plan, to the right of the keys
 * @property {number} perSecond pixels a second
 * @property {number} row pixels a pitch
 * @property {number} lowest @property {number} highest pitches that are shown
 */

/**
 * @param {number} width @param {number} height pixels
 * @param {number} lowest @param {number} highest
 * @returns {Stage}
 */
export function stage(width, height, lowest = LOWEST, highest = HIGHEST) {
  const keys = width < 600 ? 16 : 26; // the keys' width, at the line
  const nowX = Math.round(width * (width < 600 ? 0.6 : 0.68));
  const perSecond = Math.max(56, Math.min(130, width / 9));
  return { width, height, nowX, planX: nowX + keys, perSecond, row: height / (highest - lowest + 1), lowest, highest };
}

/** Where something at `time` is, at `now`. @param {Stage} stage @param {number} time @param {number} now */
export function timeX(stage, time, now) {
  return (time <= now ? stage.nowX : stage.planX) + (time - now) * stage.perSecond;
}

/** The top of a pitch's row. @param {Stage} stage @param {number} pitch */
export function pitchY(stage, pitch) {
  return (stage.highest - pitch) * stage.row;
}

/**
 * @typedef {{pitch: number, black: boolean, x: number, width: number, height: number}} Key
 */

/**
 * The keys of a keyboard of `width` by `height` from `lowest` to `highest`, which are white keys; white ones first, so that drawing
 * them in order puts black over white.
 * @param {number} width @param {number} height @param {number} lowest @param {number} highest
 * @returns {Key[]}
 */
export function keys(width, height, lowest, highest) {
  const pitches = Array.from({ length: highest - lowest + 1 }, (_, i) => lowest + i);
  const whites = pitches.filter((pitch) => !isBlack(pitch));
  const wide = width / whites.length;
  const white = whites.map((pitch, i) => ({ pitch, black: false, x: i * wide, width: wide, height }));
  const black = pitches.filter(isBlack).map((pitch) => {
    const left = white[whites.indexOf(pitch - 1)];
    const narrow = wide * 0.6;
    return { pitch, black: true, x: left.x + wide - narrow / 2, width: narrow, height: height * 0.62 };
  });
  return [...white, ...black];
}

/** The key at a point, null beside them. @param {Key[]} all @param {number} x @param {number} y @returns {Key | null} */
export function keyAt(all, x, y) {
  return all.findLast((key) => x >= key.x && x < key.x + key.width && y >= 0 && y < key.height) ?? null;
}

/** How hard a key was struck at height `y` of it: further down is louder, as it is on the keys' own lever. @param {Key} key @param {number} y */
export function touchVelocity(key, y) {
  const depth = Math.max(0, Math.min(1, y / key.height));
  return Math.round(36 + 80 * depth);
}
