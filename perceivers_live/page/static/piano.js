// A piano by additive synthesis: each partial is a sine with its own frequency, loudness and decay.
//
// The partials of a stiff string are inharmonic: partial k of a string with stiffness B is at k f sqrt(1 + B k^2). The two or three
// strings of a key are slightly out of tune and exchange energy through the bridge, so a partial beats, and decays first fast and
// then slowly. Each partial is therefore a loud sine that decays fast and a soft one that decays slowly. A harder strike excites
// more high partials. The hammer's position suppresses every eighth partial. (Fletcher and Rossing, The Physics of Musical
// Instruments, chapter 12.)

const LOUDEST = 0.1; // amplitude of a fortissimo note
const HIGHEST_PARTIAL = 11000; // Hz
const MOST_PARTIALS = 28;
const SLOW_PARTIALS = 7; // the lowest ones have a second, slow part
const STRIKE_POINT = 1 / 8; // of the string's length
const SILENT = 2e-5; // amplitude below which a partial is removed
const MOST_VOICES = 40;
const UNDAMPED = 90; // pitches from here on have no dampers
const BLOCK = 128; // samples that are worked on at a time

/**
 * @typedef {{frequency: number, amplitude: number, rate: number}} Partial frequency in Hz; `rate`: of its decay, e-folds a second
 */

/** @param {number} pitch MIDI note @returns {number} Hz */
export function frequencyOf(pitch) {
  return 440 * 2 ** ((pitch - 69) / 12);
}

/**
 * The partials of a key struck with a velocity of 1..127.
 * @param {number} pitch @param {number} velocity @returns {Partial[]}
 */
export function partialsOf(pitch, velocity) {
  const base = frequencyOf(pitch), force = velocity / 127;
  const stiffness = 0.00025 * 2 ** (Math.max(0, pitch - 40) / 9) + 0.00015;
  const decay = 0.32 * 2 ** ((pitch - 60) / 15);
  const hardness = 380 + 2600 * force ** 1.7 + 1.1 * base; // Hz: above this the hammer excites less and less
  /** @type {Partial[]} */
  const partials = [];
  let power = 0;
  for (let k = 1; k <= MOST_PARTIALS; k++) {
    const frequency = k * base * Math.sqrt((1 + stiffness * k * k) / (1 + stiffness));
    if (frequency > HIGHEST_PARTIAL) break;
    const place = Math.abs(Math.sin(Math.PI * k * STRIKE_POINT)) + 0.04;
    const body = 1 / (1 + (75 / frequency) ** 2); // the soundboard hardly radiates the lowest frequencies
    const amplitude = (place * body * Math.exp(-frequency / hardness)) / k ** 0.35;
    const rate = decay * (1 + 0.42 * (k - 1) ** 1.05);
    power += amplitude * amplitude;
    partials.push({ frequency, amplitude, rate });
  }
  const level = (LOUDEST * force ** 1.5) / Math.sqrt(power);
  /** @type {Partial[]} */
  const strings = [];
  partials.forEach((one, i) => {
    const amplitude = one.amplitude * level;
    const beating = 0.12 + 0.09 * ((pitch * 7 + i * 5) % 6); // Hz, another for every string
    if (i < SLOW_PARTIALS) {
      strings.push({ frequency: one.frequency, amplitude: amplitude * 0.8, rate: one.rate * 2.6 });
      strings.push({ frequency: one.frequency + beating, amplitude: amplitude * 0.28, rate: one.rate * 0.62 });
    } else strings.push({ frequency: one.frequency, amplitude, rate: one.rate * 2 });
  });
  return strings;
}

/** The sounding strings of one key. */
class Voice {
  /** @param {number} part @param {number} pitch @param {number} velocity @param {number} sampleRate */
  constructor(part, pitch, velocity, sampleRate) {
    const partials = partialsOf(pitch, velocity);
    this.part = part;
    this.pitch = pitch;
    this.sampleRate = sampleRate;
    this.isHeld = true;
    this.isDamped = false;
    this.count = partials.length;
    this.cos = new Float64Array(this.count); // of the turn from sample to sample, shrunk by the decay
    this.sin = new Float64Array(this.count);
    this.x = new Float64Array(this.count); // where each partial's rotation is
    this.y = new Float64Array(this.count);
    partials.forEach((one, i) => {
      const turn = (2 * Math.PI * one.frequency) / sampleRate, shrink = Math.exp(-one.rate / sampleRate);
      this.cos[i] = shrink * Math.cos(turn);
      this.sin[i] = shrink * Math.sin(turn);
      this.x[i] = one.amplitude;
    });
    const pan = 0.5 + 0.3 * ((pitch - 64) / 44); // as the player hears it: low strings to the left
    this.left = Math.cos((pan * Math.PI) / 2) * Math.SQRT2;
    this.right = Math.sin((pan * Math.PI) / 2) * Math.SQRT2;
    this.knock = 0.035 * (velocity / 127) ** 2; // the hammer's own noise
    this.knockShrink = Math.exp(-90 / sampleRate);
    this.noise = 0;
    this.seed = (pitch * 7919 + velocity * 104729) | 1;
  }

  /** The damper falls on the strings. @param {number} seconds in which the sound decays by a factor of e */
  damp(seconds) {
    if (this.isDamped) return;
    this.isDamped = true;
    const shrink = Math.exp(-1 / (seconds * this.sampleRate));
    for (let i = 0; i < this.count; i++) {
      this.cos[i] *= shrink;
      this.sin[i] *= shrink;
    }
  }

  /** Adds `length` samples to `mono`; false once nothing is left to be heard. @param {Float32Array} mono @param {number} length */
  render(mono, length) {
    const { cos, sin, x, y } = this;
    let kept = 0;
    for (let i = 0; i < this.count; i++) {
      const c = cos[i], s = sin[i];
      let re = x[i], im = y[i];
      for (let n = 0; n < length; n++) {
        const turned = re * c - im * s;
        im = re * s + im * c;
        re = turned;
        mono[n] += im;
      }
      if (Math.abs(re) + Math.abs(im) < SILENT) continue; // removed: the later ones move up
      cos[kept] = c;
      sin[kept] = s;
      x[kept] = re;
      y[kept] = im;
      kept += 1;
    }
    this.count = kept;
    if (this.knock > SILENT) this._renderKnock(mono, length);
    return kept > 0;
  }

  /** @param {Float32Array} mono @param {number} length */
  _renderKnock(mono, length) {
    for (let n = 0; n < length; n++) {
      this.seed = (Math.imul(this.seed, 1664525) + 1013904223) | 0;
      this.noise += 0.12 * (this.seed / 2147483648 - this.noise); // dull
      mono[n] += this.noise * this.knock;
      this.knock *= this.knockShrink;
    }
  }
}

/** The whole instrument. Each part (human, machine, replay) has its own keys and its own pedal; the strings are shared. */
export class Piano {
  /** @param {number} sampleRate */
  constructor(sampleRate) {
    this._sampleRate = sampleRate;
    /** @type {Voice[]} oldest first */
    this._voices = [];
    /** @type {Set<number>} */
    this._pedals = new Set();
    this._mono = new Float32Array(BLOCK);
  }

  /** @returns {number} number of keys whose strings sound */
  get voices() {
    return this._voices.length;
  }

  /** A raw MIDI message of a part. @param {number} part @param {number[]} message */
  play(part, [status, first, second]) {
    const kind = status & 0xf0;
    if (kind === 0x90 && second > 0) this.strike(part, first, second);
    else if (kind === 0x80 || kind === 0x90) this.release(part, first);
    else if (kind === 0xb0 && first === 64) this.pedal(part, second >= 64);
    else if (kind === 0xb0 && (first === 120 || first === 123)) this.releaseAll(part);
  }

  /** @param {number} part @param {number} pitch @param {number} velocity 1..127 */
  strike(part, pitch, velocity) {
    for (const voice of this._voices) {
      if (voice.pitch === pitch) {
        voice.isHeld = false;
        voice.damp(0.05); // the hammer stops what the last blow left
      }
    }
    this._voices.push(new Voice(part, pitch, velocity, this._sampleRate));
    const surplus = this._voices.length - MOST_VOICES;
    if (surplus > 0) for (const voice of this._voices.filter((one) => !one.isHeld || surplus > 8).slice(0, surplus)) voice.damp(0.02);
  }

  /** @param {number} part @param {number} pitch */
  release(part, pitch) {
    for (const voice of this._voices) if (voice.part === part && voice.pitch === pitch) voice.isHeld = false;
    this._dampReleased();
  }

  /** @param {number} part @param {boolean} down */
  pedal(part, down) {
    if (down) this._pedals.add(part);
    else this._pedals.delete(part);
    this._dampReleased();
  }

  /** The keys and the pedal of a part are released. @param {number} part */
  releaseAll(part) {
    for (const voice of this._voices) if (voice.part === part) voice.isHeld = false;
    this._pedals.delete(part);
    this._dampReleased();
  }

  /** Adds the sound from sample `from` to `to` to both channels. @param {Float32Array} left @param {Float32Array} right @param {number} from @param {number} to */
  render(left, right, from, to) {
    for (let start = from; start < to; start += BLOCK) {
      const length = Math.min(BLOCK, to - start);
      this._voices = this._voices.filter((voice) => {
        this._mono.fill(0);
        const isHeard = voice.render(this._mono, length);
        for (let n = 0; n < length; n++) {
          left[start + n] += this._mono[n] * voice.left;
          right[start + n] += this._mono[n] * voice.right;
        }
        return isHeard;
      });
    }
  }

  _dampReleased() {
    if (this._pedals.size > 0) return;
    for (const voice of this._voices) {
      if (!voice.isHeld && voice.pitch < UNDAMPED) voice.damp(0.05 + 0.1 * 2 ** ((48 - voice.pitch) / 18));
    }
  }
}
