// Types of the messages between page and daemon. `perceivers_live/page/protocol.py` describes them.

/** @typedef {"human" | "machine"} Part */
/** @typedef {"on" | "off" | "down" | "up"} Action note-on, note-off, pedal down, pedal up */
/** @typedef {[time: number, action: Action, pitch: number, velocity: number]} Played */
/** @typedef {[number: number, time: number, action: Action, pitch: number, velocity: number]} Planned */

/**
 * @typedef {object} Control
 * @property {string} name
 * @property {"float" | "int" | "choice" | "switch"} kind
 * @property {string} group
 * @property {number | string | boolean} value
 * @property {number | string | boolean} default
 * @property {number} low
 * @property {number} high
 * @property {string[]} choices
 * @property {string} unit
 * @property {string} help
 */

/** @typedef {{wanted: string, name: string, state: "open" | "waiting", text: string}} Port */
/** @typedef {{target: string, channel: number, number: number}} Binding */

/** @typedef {{type: "you", number: number}} You */
/** @typedef {{type: "welcome", clock: number, session: string, controls: Control[], commands: string[]}} Welcome */
/** @typedef {{type: "pong", sent: number, clock: number}} Pong */
/** @typedef {{type: "control", name: string, value: number | string | boolean, by: number}} Changed */
/** @typedef {{type: "played", part: Part, events: Played[]}} PlayedMessage */
/** @typedef {{type: "planned", events: Planned[]}} PlannedMessage */
/** @typedef {{type: "dropped", first: number}} Dropped */
/** @typedef {{type: "sound", time: number, message: number[]}} Sound */
/** @typedef {{type: "turn", state: "listening" | "playing"}} Turn */
/** @typedef {{type: "countdown", at: number | null}} Countdown */
/** @typedef {{type: "beat", running: boolean, stopped: boolean, bpm: number, beat: number, at: number}} Beat */
/** @typedef {{type: "ports", inputs: string[], outputs: string[], input: Port, output: Port}} Ports */
/** @typedef {{type: "health", figures: Record<string, number>, runtime: string}} Health */
/** @typedef {{type: "bindings", bound: Binding[], learning: string | null}} Bindings */
/** @typedef {{type: "states", names: string[]}} States */
/** @typedef {{type: "notice", level: "info" | "warning" | "error", text: string}} Notice */
/** @typedef {{type: "refused", text: string}} Refused */

/**
 * @typedef {You | Welcome | Pong | Changed | PlayedMessage | PlannedMessage | Dropped | Sound | Turn | Countdown | Beat | Ports
 *     | Health | Bindings | States | Notice | Refused} FromDaemon
 */

/**
 * @typedef {{type: "ping", sent: number}
 *     | {type: "set", name: string, value: number | string | boolean}
 *     | {type: "command", name: string, arguments: (number | string | boolean)[]}
 *     | {type: "midi", time: number, message: number[]}
 *     | {type: "port", direction: "input" | "output", name: string}} ToDaemon
 */

export {};
