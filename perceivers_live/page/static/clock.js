// The daemon's clock, seen from here.

const KEPT = 16; // answers, of which the quickest counts
const DRIFT = 0.0002; // seconds a second by which an older answer is trusted less: two clocks run apart

/**
 * Estimates how far the daemon's clock is ahead of ours from questions and answers. The quickest of the last answers tells most:
 * its way took least. Times are seconds.
 */
export class ClockEstimate {
  constructor() {
    /** @type {{offset: number, error: number, at: number}[]} */
    this._answers = [];
    /** Seconds that the daemon's clock is ahead; null before the first answer. @type {number | null} */
    this.offset = null;
    /** Seconds that the offset may be wrong. */
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

  /** Another daemon, another clock. */
  reset() {
    this._answers = [];
    this.offset = null;
    this.error = Infinity;
  }
}
