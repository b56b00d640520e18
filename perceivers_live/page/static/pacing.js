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
  /** @param {Play} play @param {() => number} clock milliseconds */
  constructor(play, clock = () => performance.now()) {
    this._play = play;
    this._clock = clock;
    /** @type {Map<string, [message: number[], at: number]>} newest values that wait, the one that has waited longest first */
    this._waiting = new Map();
    this._sent = -Infinity; // when the last value was passed on
    this._isTiming = false;
  }

  /** @param {number[]} message @param {number} at seconds */
  feed(message, at) {
    const [status, first] = message, kind = status & 0xf0;
    if (!isContinuous(message)) {
      this.flush(status & 0x0f);
      this._play(message, at);
      return;
    }
    this._waiting.set(kind === 0xa0 || kind === 0xb0 ? `${status} ${first}` : `${status}`, [message, at]);
    this._send();
  }

  /** Passes on what waits. @param {number | null} channel null: of all channels */
  flush(channel = null) {
    for (const [key, [message]] of this._waiting) if (channel === null || (message[0] & 0x0f) === channel) this._pass(key);
  }

  /** Passes on as many values as the time since the last one allows: a timer alone would be too slow in a hidden tab. */
  _send() {
    const now = this._clock();
    let allowed = Math.floor((now - this._sent) / INTERVAL);
    for (const key of this._waiting.keys()) {
      if (allowed-- < 1) break;
      this._sent = now;
      this._pass(key);
    }
    if (this._waiting.size === 0 || this._isTiming) return;
    this._isTiming = true;
    setTimeout(() => {
      this._isTiming = false;
      this._send();
    }, INTERVAL);
  }

  /** @param {string} key */
  _pass(key) {
    const waiting = this._waiting.get(key);
    this._waiting.delete(key);
    if (waiting) this._play(...waiting);
  }
}
