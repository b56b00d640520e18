// Warnings, errors and rejections from the daemon. The newest is on top. Errors stay until they are dismissed.

import { element } from "./dom.js";

const MOST = 4;
const SHOWN = 12000; // milliseconds; errors stay

export class Notices {
  /** @param {HTMLElement} where */
  constructor(where) {
    this._where = where;
  }

  /** @param {"info" | "warning" | "error"} level @param {string} text */
  add(level, text) {
    if ([...this._where.children].some((one) => one.firstElementChild?.textContent === text)) return;
    const close = element("button", { type: "button", "aria-label": "Dismiss", onclick: () => item.remove() }, "×");
    const item = element("li", { class: level }, element("span", {}, text), close);
    this._where.prepend(item);
    while (this._where.children.length > MOST) this._where.lastElementChild?.remove();
    if (level !== "error") setTimeout(() => item.remove(), SHOWN);
  }
}
