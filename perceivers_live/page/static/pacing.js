// Limits the rate of wheels, pressure and controllers. An MPE keyboard sends thousands of their values a second; a page that sent
// them all would be disconnected.

const INTERVAL = 5; // milliseconds between two values of them, of all channels together
const CONTROLLERS = 120; // controllers from here on are channel mode messages
const AT_ONCE = new Set([0, 6, 32, 38, 64, 65, 66, 67, 68, 69, 96, 97, 98, 99, 100, 101]); // bank, data entry, pedals, (N)RPN

/** @typedef {(message: number[], at: number) => void} Play at: seconds on the page's clock */

/** Whether only the newest value of such a message matters. @param {number[]} message */
function isContinuous([status, first]) {
  const kind = status & 0xf0;
  return kind === 0xa0 || kind === 0xd0 || kind === 0xe0 || (kind === 0xb0 && first < CONTROLLERS && !AT_ONCE.has(first));
}

/** Passes messages on: continuous values at a limited rate, the newest of each; everything else at once, after what waits for its channel. */
export class Pacing {
  /** @param {Play} play */
  constructor(play) {
    this._play = play;
    /** @type {Map<string, [message: number[], at: number]>} newest values that wait, the one that has waited longest first */
    this._waiting = new Map();
    this._isTiming = false;
  }

  /** @param {number[]} message @param {number} at seconds */
  feed(message, at) {
    if (!isContinuous(message)) {
      this._flush(message[0] & 0x0f);
      this._play(message, at);
      return;
    }
    const [status, first] = message, kind = status & 0xf0;
    this._waiting.set(kind === 0xa0 || kind === 0xb0 ? `${status} ${first}` : `${status}`, [message, at]);
    if (!this._isTiming) this._next();
  }

  /** Discards what waits. */
  clear() {
    this._waiting.clear();
  }

  /** @param {number} channel */
  _flush(channel) {
    for (const [key, [message, at]] of this._waiting) {
      if ((message[0] & 0x0f) === channel) {
        this._waiting.delete(key);
        this._play(message, at);
      }
    }
  }

  _next() {
    const [oldest] = this._waiting;
    this._isTiming = oldest !== undefined;
    if (!oldest) return;
    this._waiting.delete(oldest[0]);
    this._play(...oldest[1]);
    setTimeout(() => this._next(), INTERVAL);
  }
}
