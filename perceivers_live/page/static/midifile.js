// Reads standard MIDI files: notes and pedals of every track, in seconds.

/** @typedef {{pitch: number, velocity: number, start: number, end: number, track: number}} FileNote */
/** @typedef {{time: number, message: number[], track: number}} FileEvent */
/** @typedef {{tracks: string[], events: FileEvent[], notes: FileNote[], length: number}} Recording */

const MOST_EVENTS = 200000;

/** Reads numbers from bytes. Throws an error at the end. */
class Reader {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  byte() {
    if (this.at >= this.bytes.length) throw new Error("the file ends too early");
    return this.bytes[this.at++];
  }

  /** @param {number} bytes */
  number(bytes) {
    let value = 0;
    for (let i = 0; i < bytes; i++) value = value * 256 + this.byte();
    return value;
  }

  /** @param {number} length */
  text(length) {
    return String.fromCharCode(...this.take(length));
  }

  /** @param {number} length */
  take(length) {
    if (this.at + length > this.bytes.length) throw new Error("the file ends too early");
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  /** A variable-length quantity. */
  variable() {
    let value = 0;
    for (let i = 0; i < 4; i++) {
      const byte = this.byte();
      value = value * 128 + (byte & 127);
      if (byte < 128) return value;
    }
    throw new Error("invalid variable-length quantity");
  }
}

/** @typedef {{tick: number, track: number, tempo?: number, message?: number[]}} Raw */

/**
 * @param {Uint8Array} bytes
 * @returns {Recording}
 * @throws {Error} if it is not a MIDI file
 */
export function readMidi(bytes) {
  const reader = new Reader(bytes);
  if (reader.text(4) !== "MThd") throw new Error("not a MIDI file");
  const header = new Reader(reader.take(reader.number(4)));
  header.number(2);
  const count = header.number(2);
  const perBeat = header.number(2);
  if (perBeat === 0 || perBeat >= 0x8000) throw new Error("its times are not in beats");
  /** @type {Raw[]} */
  const raw = [];
  /** @type {string[]} */
  const tracks = [];
  for (let track = 0; track < count && reader.at < bytes.length; track++) {
    const kind = reader.text(4);
    const body = new Reader(reader.take(reader.number(4)));
    tracks.push(kind === "MTrk" ? readTrack(body, track, raw) : "");
  }
  raw.sort((a, b) => a.tick - b.tick);
  return timed(raw, perBeat, tracks);
}

/** Appends a track's events to `raw`; returns its name. @param {Reader} reader @param {number} track @param {Raw[]} raw */
function readTrack(reader, track, raw) {
  let tick = 0, status = 0, name = "";
  while (reader.at < reader.bytes.length) {
    tick += reader.variable();
    const first = reader.byte();
    if (first === 0xff) {
      const type = reader.byte();
      const content = reader.take(reader.variable());
      if (type === 0x03) name = String.fromCharCode(...content);
      if (type === 0x51 && content.length === 3) raw.push({ tick, track, tempo: content[0] * 65536 + content[1] * 256 + content[2] });
    } else if (first === 0xf0 || first === 0xf7) {
      reader.take(reader.variable());
    } else {
      if (first < 0x80 && status === 0) throw new Error("data byte without status");
      const running = first < 0x80;
      if (!running) status = first;
      const one = running ? first : reader.byte();
      const isShort = (status & 0xf0) === 0xc0 || (status & 0xf0) === 0xd0;
      raw.push({ tick, track, message: isShort ? [status, one] : [status, one, reader.byte()] });
    }
    if (raw.length > MOST_EVENTS) throw new Error("too long to be drawn");
  }
  return name;
}

/** @param {Raw[]} raw in order @param {number} perBeat @param {string[]} tracks @returns {Recording} */
function timed(raw, perBeat, tracks) {
  let tempo = 500000, time = 0, last = 0;
  /** @type {FileEvent[]} */
  const events = [];
  /** @type {FileNote[]} */
  const notes = [];
  /** @type {Map<string, FileNote>} */
  const open = new Map();
  for (const one of raw) {
    time += ((one.tick - last) * tempo) / perBeat / 1e6;
    last = one.tick;
    if (one.tempo !== undefined) tempo = one.tempo;
    if (!one.message) continue;
    events.push({ time, message: one.message, track: one.track });
    const [status, pitch, velocity] = one.message;
    const kind = status & 0xf0, key = `${one.track} ${status & 15} ${pitch}`;
    if (kind === 0x90 || kind === 0x80) {
      const sounding = open.get(key);
      if (sounding) {
        sounding.end = time;
        open.delete(key);
      }
      if (kind === 0x90 && velocity > 0) {
        const note = { pitch, velocity, start: time, end: time, track: one.track };
        notes.push(note);
        open.set(key, note);
      }
    }
  }
  for (const note of open.values()) note.end = time;
  return { tracks, events, notes, length: time };
}
