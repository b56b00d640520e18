// Messages, warnings, errors and rejections from the daemon. The newest is on top. Errors stay until they are dismissed, or until
// there are as many newer errors as fit.

import { element } from "./dom.js";

const MOST = 4;
const SHOWN = 12000; // milliseconds; errors stay

export class Notices {
  /** @param {HTMLElement} where */
  constructor(where) {
    this._where = where;
    /** @type {WeakMap<Element, number>} */
    this._timers = new WeakMap();
  }

  /** @param {"info" | "warning" | "error"} level @param {string} text */
  add(level, text) {
    const shown = [...this._where.children].find((one) => one.firstElementChild?.textContent === text);
    const close = element("button", { type: "button", "aria-label": "Dismiss", onclick: () => item.remove() }, "×");
    const item = shown ?? element("li", { class: level }, element("span", {}, text), close);
    if (!shown) this._where.prepend(item);
    clearTimeout(this._timers.get(item));
    if (level !== "error") this._timers.set(item, setTimeout(() => item.remove(), SHOWN));
    const items = [...this._where.children];
    if (items.length > MOST) (items.findLast((one) => one !== item && !one.matches(".error")) ?? items[MOST]).remove();
  }
}
