// Notes that have sounded, sound, are planned or were dropped from the plan. Times are seconds on the daemon's clock.

/** @typedef {import("./messages.js").Part} Part */
/** @typedef {import("./messages.js").Played} Played */
/** @typedef {import("./messages.js").Planned} Planned */

/**
 * @typedef {object} Note
 * @property {Part} part
 * @property {number} pitch
 * @property {number} velocity
 * @property {number} start
 * @property {number | null} end null while it sounds
 */

/** @typedef {{part: Part, start: number, end: number | null}} Press the pedal, held */

/**
 * @typedef {object} PlannedNote
 * @property {number} number
 * @property {number} pitch
 * @property {number} velocity
 * @property {number} start
 * @property {number | null} end null while its end is not planned
 * @property {number} ending number of the planned release, Infinity if there is none
 */

/** @typedef {PlannedNote & {droppedAt: number}} DroppedNote */

const FADING = 1.2; // seconds for which what was dropped is kept
const SAME = 0.0005; // seconds
const AGAIN = 0.03; // seconds: a note that is planned again this near was not taken back
const MOST_NOTES = 20000; // kept, however long the window

export class Music {
  /** @param {number} memory seconds of the past that are kept */
  constructor(memory) {
    this.memory = memory;
    /** @type {Note[]} in the order of their ends, those that sound last */
    this.notes = [];
    /** @type {Press[]} */
    this.presses = [];
    /** @type {PlannedNote[]} */
    this.plan = [];
    /** @type {DroppedNote[]} */
    this.dropped = [];
    /** When something was last played, by part. @type {Record<Part, number>} */
    this.latest = { human: -Infinity, machine: -Infinity };
  }

  /** @param {Part} part @param {Played[]} events */
  played(part, events) {
    for (const [time, action, pitch, velocity] of events) {
      this.latest[part] = Math.max(this.latest[part], time);
      if (part === "machine") this._planSounded(time);
      if (action === "on") {
        this._end(part, pitch, time); // a note that was never released, as far as this page received
        this.notes.push({ part, pitch, velocity, start: time, end: null });
      } else if (action === "off") this._end(part, pitch, time);
      else if (action === "down") this.presses.push({ part, start: time, end: null });
      else for (const press of this.presses) if (press.part === part && press.end === null) press.end = time;
    }
  }

  /** @param {Planned[]} events */
  planned(events) {
    for (const [number, time, action, pitch, velocity] of events) {
      if (action === "on") {
        this.dropped = this.dropped.filter((one) => one.pitch !== pitch || Math.abs(one.start - time) > AGAIN);
        this.plan.push({ number, pitch, velocity, start: time, end: null, ending: Infinity });
      } else if (action === "off") {
        const note = this.plan.findLast((one) => one.pitch === pitch && one.end === null);
        if (note) {
          note.end = time;
          note.ending = number;
        }
      }
    }
  }

  /** Planned events from number `first` on will not sound. @param {number} first @param {number} now */
  drop(first, now) {
    for (const note of this.plan) {
      if (note.number >= first) this.dropped.push({ ...note, droppedAt: now });
      else if (note.ending >= first) {
        note.end = null;
        note.ending = Infinity;
      }
    }
    this.plan = this.plan.filter((note) => note.number < first);
  }

  /** Nothing sounds and nothing is planned: the daemon has gone, or begins anew. @param {number} now */
  silence(now) {
    this.drop(-Infinity, now);
    for (const note of this.notes) if (note.end === null) note.end = now;
    for (const press of this.presses) if (press.end === null) press.end = now;
  }

  /** Removes all notes, for example when another daemon with another clock was started. */
  clear() {
    this.notes = [];
    this.presses = [];
    this.plan = [];
    this.dropped = [];
    this.latest = { human: -Infinity, machine: -Infinity };
  }

  /** Removes what is too old to be drawn. @param {number} now */
  prune(now) {
    const oldest = now - this.memory;
    const isSeen = (/** @type {{end: number | null}} */ one) => one.end === null || one.end > oldest;
    if (this.notes.length > MOST_NOTES) this.notes = this.notes.slice(-MOST_NOTES / 2);
    if (this.notes.length && !isSeen(this.notes[0])) this.notes = this.notes.filter(isSeen);
    if (this.presses.length && !isSeen(this.presses[0])) this.presses = this.presses.filter(isSeen);
    this.dropped = this.dropped.filter((note) => now - note.droppedAt < FADING);
    this._planSounded(now - 1); // it should have sounded long ago, and no message about it has arrived
  }

  /** The keys that are down: pitch -> the part that holds it. @returns {Map<number, Part>} */
  sounding() {
    const down = new Map();
    for (const note of this.notes) if (note.end === null) down.set(note.pitch, note.part);
    return down;
  }

  /** Whether a part's pedal is down. @param {Part} part */
  pedal(part) {
    return this.presses.some((press) => press.part === part && press.end === null);
  }

  /** The plan is in time order: what was planned up to `time` has sounded. @param {number} time */
  _planSounded(time) {
    if (this.plan.length && this.plan[0].start <= time + SAME) this.plan = this.plan.filter((note) => note.start > time + SAME);
  }

  /** @param {Part} part @param {number} pitch @param {number} time */
  _end(part, pitch, time) {
    const note = this.notes.findLast((one) => one.end === null && one.part === part && one.pitch === pitch);
    if (note) note.end = Math.max(time, note.start);
  }
}
