// The status line: who plays, and when the machine begins.

/** @typedef {import("./messages.js").Part} Part */

/**
 * @typedef {object} Situation
 * @property {boolean} isConnected
 * @property {"listening" | "playing"} turn
 * @property {number | null} countdown when the machine begins, on the daemon's clock
 * @property {string} mode
 * @property {boolean} hold
 * @property {boolean} isStopped whether the sequencer that sends the clock is stopped
 * @property {string} missingInput the input port that is chosen but not open; "": none
 * @property {boolean} humanPlays
 * @property {boolean} everPlayed
 * @property {boolean} canPlayHere whether this page is the input
 * @property {number} now
 */

/** @typedef {{kind: "away" | "human" | "machine" | "both" | "waiting" | "idle", text: string}} Line */

/** @param {Situation} situation @returns {Line} */
export function statusLine(situation) {
  const { isConnected, turn, countdown, mode, hold, isStopped, missingInput, humanPlays, everPlayed, canPlayHere, now } = situation;
  if (!isConnected) return { kind: "away", text: "Disconnected. Trying again" };
  if (turn === "playing") {
    return humanPlays ? { kind: "both", text: "You play together" } : { kind: "machine", text: "The machine plays" };
  }
  if (hold) return { kind: "idle", text: "On hold: the machine only listens" };
  if (mode === "listen") return { kind: "idle", text: "The machine only listens" };
  if (isStopped) return { kind: "idle", text: "Stopped by the clock: the machine only listens" };
  if (countdown !== null && countdown > now) {
    const left = countdown - now;
    if (left < 60) return { kind: humanPlays ? "human" : "waiting", text: `Replies in ${left.toFixed(1)} s` };
  }
  if (humanPlays) return { kind: "human", text: "You play" };
  if (missingInput) return { kind: "idle", text: `Waiting for ${missingInput}` };
  if (mode === "solo") return { kind: "idle", text: "“Take over” lets the machine play" };
  if (everPlayed) return { kind: "idle", text: "Your turn" };
  return { kind: "idle", text: canPlayHere ? "Play a phrase, and pause" : "Play a phrase on your keyboard, and pause" };
}
