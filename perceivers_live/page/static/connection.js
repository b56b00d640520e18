// The WebSocket to the daemon, which is opened again when it closes, and the daemon's clock.

import { ClockEstimate } from "./clock.js";

/** @typedef {import("./messages.js").FromDaemon} FromDaemon */
/** @typedef {import("./messages.js").ToDaemon} ToDaemon */

const FIRST_RETRY = 250; // milliseconds, then twice as long each time
const LONGEST_RETRY = 2000;
const QUICK_PINGS = 8; // at the start, to know the clock soon
const PING_EVERY = 2000; // milliseconds
const MISSING = 7; // seconds without a message after which the connection counts as lost, if pings were not answered
const MOST_BUFFERED = 1 << 16; // bytes: messages that wait for more than this would be too late

/** @returns {number} seconds on the page's own clock */
export function pageTime() {
  return performance.now() / 1000;
}

export class Connection {
  /**
   * @param {string} url
   * @param {(message: FromDaemon) => void} onMessage
   * @param {(isOpen: boolean) => void} onChange
   */
  constructor(url, onMessage, onChange) {
    this._url = url;
    this._onMessage = onMessage;
    this._onChange = onChange;
    this._clock = new ClockEstimate();
    /** @type {WebSocket | null} */
    this._socket = null;
    this._retry = FIRST_RETRY;
    this._pings = 0;
    this._received = 0; // when the last message came, on the page's clock
    this._unanswered = 0; // pings since then
    this.isOpen = false;
    this._open();
  }

  /** The daemon's time in seconds; null while it is unknown. */
  get now() {
    return this.at(pageTime());
  }

  /** @param {number} time seconds on the page's clock @returns {number | null} the same on the daemon's */
  at(time) {
    return this._clock.offset === null ? null : time + this._clock.offset;
  }

  /** Largest possible error of the daemon's time in seconds. */
  get clockError() {
    return this._clock.error;
  }

  /**
   * Sends a message, if the daemon can be reached now. If too much waits to be sent, closes the connection instead: the daemon then
   * releases the page's notes, and no single release gets lost.
   * @param {ToDaemon} message
   */
  send(message) {
    const socket = this._socket;
    if (!this.isOpen || !socket) return;
    if (socket.bufferedAmount < MOST_BUFFERED) {
      socket.send(JSON.stringify(message));
    } else {
      this._lost(socket);
      socket.close();
    }
  }

  _open() {
    const socket = new WebSocket(this._url);
    this._socket = socket;
    socket.onopen = () => {
      this._retry = FIRST_RETRY;
      this._clock.reset();
      this._pings = 0;
      this._received = pageTime();
      this._unanswered = 0;
      this.isOpen = true;
      this._onChange(true);
      this._ping(socket);
    };
    socket.onmessage = (event) => this._read(String(event.data));
    socket.onclose = () => this._lost(socket);
  }

  /** @param {WebSocket} socket */
  _lost(socket) {
    if (socket !== this._socket) return; // was given up before
    this._socket = null;
    const was = this.isOpen;
    this.isOpen = false;
    if (was) this._onChange(false);
    setTimeout(() => this._open(), this._retry);
    this._retry = Math.min(this._retry * 2, LONGEST_RETRY);
  }

  /** @param {string} text */
  _read(text) {
    const received = this._received = pageTime();
    this._unanswered = 0;
    for (const message of /** @type {FromDaemon[]} */ (JSON.parse(text))) {
      if (message.type === "pong") this._clock.answer(message.sent, message.clock, received);
      else this._onMessage(message);
    }
  }

  /** @param {WebSocket} socket */
  _ping(socket) {
    if (socket !== this._socket || socket.readyState !== WebSocket.OPEN) return;
    if (this._unanswered > 2 && pageTime() - this._received > MISSING) {
      this._lost(socket); // the browser itself may wait for minutes
      socket.close();
      return;
    }
    this.send({ type: "ping", sent: pageTime() });
    this._pings += 1;
    this._unanswered += 1;
    setTimeout(() => this._ping(socket), this._pings < QUICK_PINGS ? 60 : PING_EVERY);
  }
}
