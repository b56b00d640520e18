import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { Connection } from "../../../perceivers_live/page/static/connection.js";

/** @type {Socket[]} */
const sockets = [];

class Socket {
  constructor() {
    this.readyState = 1;
    this.bufferedAmount = 0;
    /** @type {any[]} */
    this.sent = [];
    sockets.push(this);
  }

  /** @param {string} text */
  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.readyState = 3;
    /** @type {any} */ (this).onclose();
  }
}

test("a daemon that stops answering counts as lost, and the page reconnects", () => {
  Object.assign(globalThis, { WebSocket: Object.assign(Socket, { OPEN: 1 }) });
  mock.timers.enable({ apis: ["setTimeout"] });
  let now = 0;
  mock.method(performance, "now", () => now);
  /** @param {number} seconds */
  const pass = (seconds) => {
    for (let tick = 0; tick < seconds * 20; tick++) {
      now += 50;
      mock.timers.tick(50);
    }
  };
  /** @type {boolean[]} */
  const changes = [];
  const connection = new Connection("ws://daemon", () => {}, (isOpen) => changes.push(isOpen));
  const socket = /** @type {any} */ (sockets[0]);
  socket.onopen();
  for (let second = 0; second < 20; second++) {
    pass(1);
    socket.onmessage({ data: "[]" });
  }
  assert.deepEqual(changes, [true]);
  pass(10);
  assert.deepEqual(changes, [true, false]);
  assert.equal(socket.readyState, 3);
  assert.equal(connection.isOpen, false);
  assert.equal(sockets.length, 2);
  mock.reset();
});

test("a connection over which messages no longer get through is closed, so that the daemon releases the keys", () => {
  Object.assign(globalThis, { WebSocket: Object.assign(Socket, { OPEN: 1 }) });
  mock.timers.enable({ apis: ["setTimeout"] });
  const connection = new Connection("ws://daemon", () => {}, () => {});
  const socket = /** @type {any} */ (sockets.at(-1));
  socket.onopen();
  socket.bufferedAmount = 1 << 20;
  connection.send(/** @type {any} */ ({ type: "midi", message: [0x80, 60, 0] }));
  assert.equal(socket.readyState, 3);
  assert.equal(connection.isOpen, false);
  const before = sockets.length;
  mock.timers.tick(5000);
  assert.equal(sockets.length, before + 1, "it is opened again");
  mock.reset();
});
