// Creates the parts of the page and connects them.

import { Connection, pageTime } from "./connection.js";
import { byId, element, setText } from "./dom.js";
import { FrameTimes } from "./frames.js";
import { Instrument } from "./instrument.js";
import { Keybed } from "./keybed.js";
import { Music } from "./music.js";
import { Notices } from "./notices.js";
import { Panel, choiceButtons } from "./panel.js";
import { Health, PAGE, Ports } from "./ports.js";
import { Recordings } from "./recordings.js";
import { Roll } from "./roll.js";
import { Sound } from "./sound.js";
import { statusLine } from "./status.js";
import { PEDAL } from "./typing.js";
import { listenToMidi } from "./webmidi.js";

/** @typedef {import("./messages.js").FromDaemon} FromDaemon */
/** @typedef {import("./messages.js").Beat} Beat */
/** @typedef {import("./messages.js").Health} HealthMessage */
/** @typedef {number | string | boolean} Value */

const PLAYING = 0.35; // seconds after an event for which its part counts as playing
const CHOOSE_PAGE = "Choose “This page” as input to use them.";

/** The latest state sent by the daemon. */
const daemon = {
  page: 0,
  session: "",
  turn: /** @type {"listening" | "playing"} */ ("listening"),
  countdown: /** @type {number | null} */ (null),
  beat: /** @type {Beat | null} */ (null),
  values: /** @type {Record<string, Value>} */ ({}),
  isOutputHere: false,
  missingInput: "", // the input that is chosen but not open
};

const music = new Music(10);
const frames = new FrameTimes();
const notices = new Notices(byId("notices"));
const sound = new Sound(showSound);
const connection = new Connection(`ws://${location.host}/page/socket`, follow, connected);
const instrument = new Instrument(connection, sound);
const roll = new Roll(byId("roll"), music);
const keybed = new Keybed(byId("keybed"), music, instrument.typing, (message, at) => instrument.play(message, at));
const panel = new Panel(byId("controls"), {
  set,
  learn: (target) => command("learn", target),
  unlearn: (target) => command("unlearn", target),
});
const ports = new Ports(byId("ports"), (direction, name) => connection.send({ type: "port", direction, name }));
const health = new Health(byId("health"));
const recordings = new Recordings(byId("recordings"), sound);
/** @type {{element: HTMLElement, show: (value: Value) => void} | null} */
let modes = null;
let webMidi = "Not used yet."; // the MIDI keyboards that the browser hears, or why it hears none
/** @type {EventTarget | null} */
let focusedByPointer = null; // the element that a mouse or finger has focused

// Messages from the daemon.

/** @param {FromDaemon} message */
function follow(message) {
  const now = connection.now;
  switch (message.type) {
    case "you": daemon.page = message.number; break;
    case "welcome": welcome(message); break;
    case "control": if (message.by !== daemon.page) showControl(message.name, message.value); break;
    case "played": music.played(message.part, message.events); break;
    case "planned": music.planned(message.events); break;
    case "dropped": if (now !== null) music.drop(message.first, now); break;
    case "sound": if (now !== null && daemon.isOutputHere) sound.playSent(message.message, now - message.time); break;
    case "turn": daemon.turn = message.state; break;
    case "countdown": daemon.countdown = message.at; break;
    case "beat": daemon.beat = message; break;
    case "ports": showPorts(message); break;
    case "health": showHealth(message); break;
    case "bindings": panel.showBindings(message); break;
    case "states": showStates(message.names); break;
    case "notice": notices.add(message.level, message.text); break;
    case "refused": notices.add("warning", message.text); break;
  }
}

/** @param {import("./messages.js").Welcome} message */
function welcome(message) {
  if (daemon.session && daemon.session !== message.session) {
    music.clear();
    notices.add("info", "Connected again: the program was restarted.");
  } else if (daemon.session) { // messages were lost, and with them perhaps releases
    music.silence(connection.now ?? 0);
    sound.silence();
  }
  daemon.session = message.session;
  daemon.values = Object.fromEntries(message.controls.map((one) => [one.name, one.value]));
  setThru();
  panel.build(message.controls);
  const mode = message.controls.find((one) => one.name === "mode");
  if (mode) {
    modes = choiceButtons(mode, (value) => set("mode", value));
    modes.element.setAttribute("aria-label", "Mode");
    modes.show(mode.value);
    byId("modes").replaceChildren(modes.element);
  }
  byId("states").hidden = !message.commands.includes("save");
}

/** @param {boolean} isOpen */
function connected(isOpen) {
  document.body.classList.toggle("away", !isOpen);
  if (!isOpen) {
    music.silence(connection.now ?? 0);
    sound.silence();
    instrument.comesBack = false;
    daemon.turn = "listening";
    daemon.countdown = null;
    daemon.beat = null;
  }
}

// Messages to the daemon.

/** @param {string} name @param {Value} value */
function set(name, value) {
  connection.send({ type: "set", name, value });
  showControl(name, value);
}

/** @param {string} name @param {...(string | number)} given */
function command(name, ...given) {
  connection.send({ type: "command", name, arguments: given });
}

function takeOverOrYield() {
  command(daemon.turn === "playing" ? "yield" : "takeover");
}

function panic() {
  command("panic");
  recordings.stop();
}

// Display.

/** @param {string} name @param {Value} value */
function showControl(name, value) {
  daemon.values[name] = value;
  panel.show(name, value);
  if (name === "mode") modes?.show(value);
  if (name === "thru") setThru();
}

/** What is played here comes back from the daemon if it passes its input on to this page. */
function setThru() {
  instrument.comesBack = instrument.isInput && daemon.isOutputHere && Boolean(daemon.values.thru);
}

/** @param {import("./messages.js").Ports} message */
function showPorts(message) {
  ports.show(message);
  instrument.isInput = message.input.wanted === PAGE;
  keybed.isPlayable = instrument.isInput;
  document.body.classList.toggle("playable", instrument.isInput);
  daemon.isOutputHere = message.output.wanted === PAGE;
  setThru();
  daemon.missingInput = message.input.state === "open" ? "" : message.input.wanted || "a virtual port";
  byId("sound").hidden = !(daemon.isOutputHere || instrument.isInput);
  showSound();
  showWebMidi();
}

function showWebMidi() {
  setText(byId("webmidi-names"), instrument.isInput ? webMidi : CHOOSE_PAGE);
}

/** @param {HealthMessage} message */
function showHealth(message) {
  const error = connection.clockError;
  health.show(message, {
    "Frame time of this page (median)": `${frames.percentile(0.5).toFixed(1)} ms`,
    "Frame time of this page (99 %)": `${frames.percentile(0.99).toFixed(1)} ms`,
    "Clock error of this page, at most": Number.isFinite(error) ? `${(1000 * error).toFixed(1)} ms` : "not yet",
  });
}

/** @param {string[]} names */
function showStates(names) {
  byId("state-names").replaceChildren(...names.map((name) => element("option", { value: name })));
  byId("saved").replaceChildren(...names.map((name) =>
    element("li", {}, element("button", { type: "button", onclick: () => command("recall", name) }, name))));
}

let soundFault = ""; // as it was last shown

function showSound() {
  const button = byId("sound");
  button.setAttribute("aria-pressed", String(sound.isOn));
  setText(button, sound.isOn ? "Sound: on" : "Sound: off");
  if (sound.fault && sound.fault !== soundFault) notices.add("warning", sound.fault);
  soundFault = sound.fault;
}

function showStatus() {
  const now = connection.now ?? 0;
  const line = statusLine({
    isConnected: connection.isOpen,
    turn: daemon.turn,
    countdown: daemon.countdown,
    mode: String(daemon.values.mode),
    hold: Boolean(daemon.values.hold),
    isStopped: daemon.beat?.stopped ?? false,
    missingInput: daemon.missingInput,
    humanPlays: now - music.latest.human < PLAYING || [...music.sounding().values()].includes("human"),
    everPlayed: Number.isFinite(music.latest.human),
    canPlayHere: instrument.isInput,
    now,
  });
  const status = byId("status");
  status.dataset.kind = line.kind;
  setText(status, line.text);
  setText(byId("spoken"), line.text.replace(/ in [\d.]+ s$/, " soon"));
  const beat = daemon.beat;
  const perBar = Number(daemon.values.beats_per_bar ?? 4);
  const place = beat?.running ? beat.beat + ((now - beat.at) * beat.bpm) / 60 : 0;
  setText(byId("beat"), beat?.running ? `${beat.bpm.toFixed(0)} bpm · ${Math.floor(place / perBar) + 1}.${(Math.floor(place) % perBar) + 1}` : "");
}

/** @param {number} time milliseconds */
function drawFrame(time) {
  frames.mark(time);
  const began = performance.now();
  const now = connection.now ?? pageTime();
  music.prune(now);
  const countdown = daemon.turn === "listening" ? daemon.countdown : null;
  roll.draw({ now, countdown, beat: daemon.beat, beatsPerBar: Number(daemon.values.beats_per_bar ?? 4) });
  keybed.draw();
  showStatus();
  frames.drawn(performance.now() - began);
  requestAnimationFrame(drawFrame);
}

// Buttons and keyboard shortcuts.

/** @param {EventTarget | null} where @returns {where is HTMLInputElement} */
function isTextField(where) {
  return where instanceof HTMLInputElement && ["text", "number"].includes(where.type);
}

/** @param {KeyboardEvent} event */
function keyDown(event) {
  const where = event.target;
  if (event.code === "Escape") {
    panic();
    event.preventDefault();
  }
  if (where instanceof HTMLSelectElement && where === focusedByPointer && event.code !== PEDAL && instrument.plays(event)) where.blur();
  else if (where instanceof HTMLSelectElement) return;
  if (isTextField(where)) {
    if (event.code === "Enter" && where.type === "number") where.blur();
    return;
  }
  const isWidget = where instanceof HTMLElement && where.matches("button, a, summary, input");
  if (isWidget && (event.code === "Space" || event.code.startsWith("Arrow"))) return;
  if (instrument.plays(event)) event.preventDefault(); // also repetitions: held with Alt, they would open menus of the browser
  if (event.repeat) return;
  if (instrument.plays(event)) instrument.keyDown(event);
  else if (event.ctrlKey || event.altKey || event.metaKey) return; // shortcuts of the browser
  else if (event.code === "Space") takeOverOrYield();
  else if (event.code === "Delete" && event.shiftKey) command("forget");
  else if (event.code === "ArrowLeft" || event.code === "ArrowRight") instrument.typing.shift(event.code === "ArrowLeft" ? -1 : 1);
  else return;
  event.preventDefault();
}

/** @param {HTMLElement} chosen */
function openTab(chosen) {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const isChosen = tab === chosen;
    tab.setAttribute("aria-selected", String(isChosen));
    /** @type {HTMLElement} */ (tab).tabIndex = isChosen ? 0 : -1;
    byId(String(tab.getAttribute("aria-controls"))).hidden = !isChosen;
  }
  if (chosen.id === "tab-recordings") recordings.refresh().catch(() => notices.add("warning", "The recordings cannot be listed."));
}

/** @param {string | null} theme */
function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  roll.resize();
  keybed.resize();
  recordings.draw();
}

function listenForEvents() {
  let isPointing = false; // whether the last action was that of a mouse or finger, not of a key
  addEventListener("pointerdown", () => { isPointing = true; }, true);
  addEventListener("keydown", () => { isPointing = false; }, true);
  addEventListener("focusin", (event) => { focusedByPointer = isPointing ? event.target : null; });
  addEventListener("keydown", keyDown);
  addEventListener("keyup", (event) => instrument.keyUp(event));
  addEventListener("pointerdown", (event) => {
    const isSwitch = event.target instanceof Element && event.target.closest("#sound");
    if (!isSwitch && (instrument.isInput || daemon.isOutputHere) && sound.isWanted && !sound.isOn) sound.start();
  });
  // What was set with the mouse does not keep the focus: the keys are for playing, and the space bar is for taking over.
  document.addEventListener("click", (event) => {
    const widget = event.target instanceof Element ? event.target.closest("button, input") : null;
    if (widget instanceof HTMLElement && event.detail > 0 && !isTextField(widget)) widget.blur();
  });
  document.addEventListener("change", ({ target }) => {
    if (target instanceof HTMLElement && isPointing && !isTextField(target)) target.blur();
  });
  byId("takeover").addEventListener("click", () => command("takeover"));
  byId("yield").addEventListener("click", () => command("yield"));
  byId("panic").addEventListener("click", panic);
  byId("forget").addEventListener("click", () => command("forget"));
  byId("sound").addEventListener("click", () => sound.switch(!sound.isOn));
  byId("panel-switch").addEventListener("click", () => {
    const isOpen = document.body.classList.toggle("panel-open");
    byId("panel-switch").setAttribute("aria-expanded", String(isOpen));
  });
  byId("theme").addEventListener("click", () => {
    const isDark = getComputedStyle(document.documentElement).colorScheme === "dark";
    localStorage.setItem("theme", isDark ? "light" : "dark");
    setTheme(isDark ? "light" : "dark");
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(null));
  byId("save").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = /** @type {HTMLInputElement} */ (byId("state-name")).value.trim();
    if (name) command("save", name);
    byId("state-name").blur();
  });
  const tabs = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("[role=tab]")]);
  for (const tab of tabs) {
    tab.addEventListener("click", () => openTab(tab));
    tab.addEventListener("keydown", (event) => {
      const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
      if (step === 0) return;
      const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
      next.focus();
      openTab(next);
    });
  }
  const midi = byId("webmidi");
  midi.addEventListener("click", async () => {
    const isAllowed = await listenToMidi((message, at) => instrument.play(message, at), (names) => {
      webMidi = names.length ? names.join(", ") : "No MIDI keyboard is connected to this computer yet.";
      showWebMidi();
    });
    if (!isAllowed) webMidi = "Web MIDI is not supported or not permitted in this browser.";
    showWebMidi();
  });
}

listenForEvents();
document.body.classList.toggle("panel-open", innerWidth > 1000);
byId("panel-switch").setAttribute("aria-expanded", String(innerWidth > 1000));
setTheme(localStorage.getItem("theme"));
requestAnimationFrame(drawFrame);

/** For tests and for the browser's console. */
Object.assign(globalThis, { perceivers: { music, sound, connection, frames, daemon } });
