// Measures the time between drawn frames.

const KEPT = 600; // frames, ten seconds of them

export class FrameTimes {
  constructor() {
    /** @type {number[]} milliseconds between frames */
    this._gaps = [];
    /** @type {number[]} milliseconds that drawing them took */
    this._work = [];
    this._last = NaN;
    /** Number of frames. */
    this.count = 0;
  }

  /** A frame is drawn at `time`, in milliseconds. @param {number} time */
  mark(time) {
    if (time - this._last < 1000) this._gaps.push(time - this._last); // longer: the page was not shown
    if (this._gaps.length > KEPT) this._gaps.shift();
    this._last = time;
    this.count += 1;
  }

  /** Drawing it took so many milliseconds. @param {number} milliseconds */
  drawn(milliseconds) {
    this._work.push(milliseconds);
    if (this._work.length > KEPT) this._work.shift();
  }

  /** What drawing took at most, for a share of the frames. @param {number} share @returns {number} milliseconds */
  work(share) {
    return percentile(this._work, share);
  }

  /** The gap that a share of the frames did not exceed. @param {number} share 0..1 @returns {number} milliseconds, NaN before the first */
  percentile(share) {
    return percentile(this._gaps, share);
  }
}

/** @param {number[]} values @param {number} share */
function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : NaN;
}
