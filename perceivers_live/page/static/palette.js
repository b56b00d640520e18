// The colours of the piano roll, read from the style sheet, which defines both themes.

/** @typedef {{human: string[], machine: string[], plan: string, planEdge: string, ink: string, faint: string, line: string,
 *     rowDark: string, white: string, black: string, keyEdge: string, paper: string, accentHuman: string, accentMachine: string}} Palette */

const SHADES = 16; // of loudness

/** @param {string} color such as "#0072b2" @returns {[number, number, number]} */
function rgb(color) {
  const value = parseInt(color.trim().slice(1), 16);
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}

/** From soft to loud: from near the paper's colour to the full one. @param {string} paper @param {string} full */
export function shades(paper, full) {
  const from = rgb(paper), to = rgb(full);
  return Array.from({ length: SHADES }, (_, i) => {
    const share = 0.34 + (0.66 * i) / (SHADES - 1);
    return `rgb(${from.map((one, k) => Math.round(one + (to[k] - one) * share)).join(" ")})`;
  });
}

/** Which shade a velocity of 1..127 has. @param {number} velocity */
export function shadeOf(velocity) {
  return Math.max(0, Math.min(SHADES - 1, Math.round(((velocity - 20) / 90) * (SHADES - 1))));
}

/** The current colours. @returns {Palette} */
export function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const color = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
  const [paper, human, machine] = [color("paper"), color("human"), color("machine")];
  return {
    human: shades(paper, human),
    machine: shades(paper, machine),
    plan: color("plan"),
    planEdge: color("plan-edge"),
    ink: color("ink"),
    faint: color("ink-soft"),
    line: color("grid"),
    rowDark: color("row"),
    white: color("key-white"),
    black: color("key-black"),
    keyEdge: color("key-edge"),
    paper,
    accentHuman: human,
    accentMachine: machine,
  };
}
