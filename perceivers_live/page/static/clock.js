// Estimates the daemon's clock.

const KEPT = 16; // answers, of which the quickest counts
const DRIFT = 0.0002; // seconds a second by which an older answer is trusted less: two clocks run apart

/**
 * Estimates the offset of the daemon's clock from the page's by pings. Uses the ping with the shortest round trip among the latest
 * ones, which has the smallest error. Times are in seconds.
 */
export class ClockEstimate {
  constructor() {
    /** @type {{offset: number, error: number, at: number}[]} */
    this._answers = [];
    /** Seconds that the daemon's clock is ahead; null before the first answer. @type {number | null} */
    this.offset = null;
    /** Largest possible error of the offset in seconds. */
    this.error = Infinity;
  }

  /** @param {number} sent ours @param {number} clock the daemon's @param {number} received ours */
  answer(sent, clock, received) {
    const error = (received - sent) / 2;
    if (!(error >= 0)) return;
    this._answers.push({ offset: clock - (sent + received) / 2, error, at: received });
    if (this._answers.length > KEPT) this._answers.shift();
    const trust = (/** @type {{error: number, at: number}} */ one) => one.error + (received - one.at) * DRIFT;
    const best = this._answers.reduce((a, b) => (trust(b) < trust(a) ? b : a));
    this.offset = best.offset;
    this.error = trust(best);
  }

  /** Forgets all pings: another daemon has another clock. */
  reset() {
    this._answers = [];
    this.offset = null;
    this.error = Infinity;
  }
}
