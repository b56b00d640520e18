// How evenly the stage is drawn.

const KEPT = 600; // frames, ten seconds of them

export class FrameTimes {
  constructor() {
    /** @type {number[]} milliseconds between frames */
    this._gaps = [];
    this._last = NaN;
  }

  /** A frame is drawn at `time`, in milliseconds. @param {number} time */
  mark(time) {
    if (time - this._last < 1000) this._gaps.push(time - this._last); // longer: the page was not shown
    if (this._gaps.length > KEPT) this._gaps.shift();
    this._last = time;
  }

  /** The gap that a share of the frames did not exceed. @param {number} share 0..1 @returns {number} milliseconds, NaN before the first */
  percentile(share) {
    const sorted = [...this._gaps].sort((a, b) => a - b);
    return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : NaN;
  }
}
