// The page's piano: the strings on the audio thread, reverberation, and volume.

/** @typedef {import("./messages.js").Part} Part */

const LATENCY = 0.03; // seconds from sending to sound of the machine's notes; longer than the jitter of the network
const ROOM = 1.3; // seconds that the room's sound takes to fade
export const PARTS = { human: 0, machine: 1, replay: 2 };

/** The impulse response of a small room: noise that fades, and grows duller as it does. @param {BaseAudioContext} context */
function room(context) {
  const length = Math.round(ROOM * context.sampleRate);
  const buffer = context.createBuffer(2, length, context.sampleRate);
  for (let channel = 0; channel < 2; channel++) {
    const data = buffer.getChannelData(channel);
    let smooth = 0;
    for (let n = 0; n < length; n++) {
      const t = n / length;
      smooth += (0.5 - 0.42 * t) * (Math.random() * 2 - 1 - smooth);
      data[n] = smooth * (1 - t) ** 2 * Math.exp(-4.5 * t);
    }
  }
  return buffer;
}

export class Sound {
  /** @param {() => void} onChange called when the sound is switched on or off */
  constructor(onChange) {
    this._onChange = onChange;
    /** @type {AudioContext | null} */
    this._context = null;
    /** @type {Promise<void> | null} */
    this._building = null;
    /** @type {AudioWorkletNode | null} */
    this._piano = null;
    /** @type {AnalyserNode | null} */
    this._meter = null;
    this._samples = new Float32Array(1024);
    this._lastSent = 0; // when the last message of the machine sounds, on the audio clock
    this.isWanted = true;
    this.fault = "";
  }

  /** Whether sound is on. */
  get isOn() {
    return this.isWanted && this._piano !== null && this._context?.state === "running";
  }

  /** Switches sound on. Browsers permit this only after a key press or a click. */
  async start() {
    try {
      this._building ??= this._build();
      await this._building;
      this.fault = "";
      await (this.isWanted ? this._context?.resume() : this._context?.suspend());
    } catch (error) {
      this._building = null; // the next start tries again
      this.fault = `no sound: ${error instanceof Error ? error.message : error}`;
    }
    this._onChange();
  }

  /** @param {boolean} on */
  async switch(on) {
    this.isWanted = on;
    if (on) await this.start();
    else {
      this.silence();
      await this._context?.suspend();
      this._onChange();
    }
  }

  /** A message that is to sound now. @param {number} part @param {number[]} message */
  play(part, message) {
    this.playAt(part, message, 0);
  }

  /** Plays a message of the machine that was sent `ago` seconds ago; from sending to sound it takes `LATENCY`. @param {number[]} message @param {number} ago */
  playSent(message, ago) {
    if (!this._context) return;
    this._lastSent = Math.max(this._lastSent, this._context.currentTime + Math.max(0, LATENCY - ago)); // never before another
    this._post(PARTS.machine, message, this._lastSent);
  }

  /** @param {number} part @param {number[]} message @param {number} after seconds from now */
  playAt(part, message, after) {
    if (this._context) this._post(part, message, this._context.currentTime + after);
  }

  /** @param {number} part @param {number[]} message @param {number} time on the audio clock */
  _post(part, message, time) {
    if (this.isOn) this._piano?.port.postMessage([time, part, message]);
  }

  /** Releases all notes and discards scheduled ones. */
  silence() {
    this._piano?.port.postMessage(null);
  }

  /** Root mean square of the latest samples, 0..1. */
  level() {
    if (!this._meter) return 0;
    this._meter.getFloatTimeDomainData(this._samples);
    return Math.sqrt(this._samples.reduce((sum, one) => sum + one * one, 0) / this._samples.length);
  }

  async _build() {
    if (typeof AudioWorkletNode === "undefined") throw new Error("the browser plays only from 127.0.0.1, localhost or https");
    const context = new AudioContext({ latencyHint: "interactive" });
    try {
      await context.audioWorklet.addModule(new URL("./piano-worklet.js", import.meta.url));
    } catch (error) {
      await context.close();
      throw error;
    }
    context.onstatechange = () => this._onChange();
    const piano = new AudioWorkletNode(context, "piano", { numberOfInputs: 0, outputChannelCount: [2] });
    const wet = new GainNode(context, { gain: 0.35 });
    const walls = new ConvolverNode(context, { buffer: room(context) });
    const volume = new GainNode(context, { gain: 1 });
    const limiter = new DynamicsCompressorNode(context, { threshold: -9, knee: 9, ratio: 6, attack: 0.003, release: 0.2 });
    const meter = new AnalyserNode(context, { fftSize: 1024 });
    piano.connect(volume);
    piano.connect(walls).connect(wet).connect(volume);
    volume.connect(limiter).connect(meter).connect(context.destination);
    [this._context, this._piano, this._meter] = [context, piano, meter];
  }
}
