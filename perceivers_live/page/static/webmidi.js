// MIDI keyboards through the browser (Web MIDI), without a MIDI system that the daemon can use.

import { Pacing } from "./pacing.js";

/** @type {Promise<MIDIAccess> | null} each access has its own inputs, and a second one would double every message */
let access = null;

/** What is held on each input, by its id. @type {Map<string, Held>} */
const held = new Map();

const RETURNING = new Set([1, 64, 66, 67, 68, 69]); // controllers that return when they are let go: modulation and pedals

/** The keys that are down on one input, and its pedals, wheels and pressure that are not at rest. */
class Held {
  constructor() {
    /** @type {Map<string, number[]>} the message that releases each */
    this._releases = new Map();
  }

  /** @param {number[]} message */
  feed([status, first, second]) {
    const kind = status & 0xf0, channel = status & 0x0f;
    if (kind === 0x80 || kind === 0x90) this._set(`${channel} ${first}`, kind === 0x90 && second > 0, [0x80 | channel, first, 64]);
    if (kind === 0xa0 || (kind === 0xb0 && RETURNING.has(first))) this._set(`${status} ${first}`, second > 0, [status, first, 0]);
    if (kind === 0xd0) this._set(`${status}`, first > 0, [status, 0]);
    if (kind === 0xe0) this._set(`${status}`, first !== 0 || second !== 64, [status, 0, 64]);
  }

  /** The messages that release everything. @returns {number[][]} */
  releases() {
    const messages = [...this._releases.values()];
    this._releases.clear();
    return messages;
  }

  /** @param {string} key @param {boolean} isDown @param {number[]} release */
  _set(key, isDown, release) {
    if (isDown) this._releases.set(key, release);
    else this._releases.delete(key);
  }
}

/**
 * Listens to all MIDI inputs of the browser, including those connected later. What is held on an input that disappears is released.
 * @param {(message: number[], at: number) => void} play called with each channel message and its time on the page's clock (seconds)
 * @param {(names: string[]) => void} onChange called with the names of the inputs
 * @returns {Promise<boolean>} whether the browser permits it
 */
export async function listenToMidi(play, onChange) {
  if (!("requestMIDIAccess" in navigator)) return false;
  try {
    access ??= navigator.requestMIDIAccess();
    const { inputs } = await access;
    const pacing = new Pacing(play);
    const listen = () => {
      const connected = [...inputs.entries()].filter(([, input]) => input.state === "connected");
      for (const [id, input] of connected) {
        const down = held.get(id) ?? new Held();
        held.set(id, down);
        input.onmidimessage = (event) => {
          const message = event.data ? [...event.data] : [];
          if (message.length === 0 || message[0] < 0x80 || message[0] >= 0xf0) return;
          down.feed(message);
          pacing.feed(message, event.timeStamp / 1000);
        };
      }
      const ids = new Set(connected.map(([id]) => id));
      for (const [id, down] of held) {
        if (ids.has(id)) continue;
        pacing.flush();
        for (const message of down.releases()) play(message, performance.now() / 1000);
        held.delete(id);
      }
      onChange(connected.map(([, input]) => input.name ?? "MIDI input"));
    };
    (await access).onstatechange = listen;
    listen();
    return true;
  } catch {
    access = null;
    return false;
  }
}
