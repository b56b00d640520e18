// The control panel, generated from the daemon's descriptions of its controls.

import { element, setText } from "./dom.js";
import { pitchName } from "./geometry.js";

/** @typedef {import("./messages.js").Control} Control */
/** @typedef {import("./messages.js").Bindings} Bindings */
/** @typedef {number | string | boolean} Value */
/** @typedef {{show: (value: Value) => void, parts: Node[]}} Widget */
/** @typedef {{show: (value: Value) => void, learn: HTMLButtonElement}} Row */

const MOST_STEPS = 1000; // of a slider; a number of more is typed
const HELD = 400; // milliseconds for which a slider that is being moved does not follow others

/** "register_low" -> "Register low" @param {string} name */
export function title(name) {
  const words = name.replace(/_ms$/, "").replaceAll("_", " ");
  return words === "min p" ? "Min-p" : words[0].toUpperCase() + words.slice(1);
}

/** A value as it is shown beside its control. @param {Control} control @param {Value} value */
export function valueText(control, value) {
  if (typeof value === "boolean") return value ? "on" : "off";
  if (typeof value === "string") return value;
  if (control.unit === "MIDI note") return pitchName(value);
  if (control.name === "seed" && value < 0) return "random";
  const number = control.kind === "int" ? String(Math.round(value)) : value.toFixed(control.high - control.low > 50 ? 0 : 2);
  const unit = control.unit === "times your phrase" ? "× phrase" : control.unit;
  return unit ? `${number} ${unit}` : number;
}

export class Panel {
  /**
   * @param {HTMLElement} where
   * @param {{set: (name: string, value: Value) => void, learn: (target: string) => void, unlearn: (target: string) => void}} act
   */
  constructor(where, act) {
    this._where = where;
    this._act = act;
    /** @type {Map<string, Row>} */
    this._rows = new Map();
    /** @type {Bindings} */
    this._bindings = { type: "bindings", bound: [], learning: null };
  }

  /** @param {Control[]} controls */
  build(controls) {
    this._rows.clear();
    /** @type {Map<string, Control[]>} */
    const groups = new Map();
    for (const control of controls) groups.set(control.group, [...(groups.get(control.group) ?? []), control]);
    const sections = [...groups].map(([group, members]) =>
      element("section", { class: "group" },
        element("h3", {}, group ? title(group) : "Controls"),
        ...members.map((control) => this._row(control)),
      ));
    this._where.replaceChildren(...sections);
    this.showBindings(this._bindings);
  }

  /** @param {string} name @param {Value} value */
  show(name, value) {
    this._rows.get(name)?.show(value);
  }

  /** @param {Bindings} bindings */
  showBindings(bindings) {
    this._bindings = bindings;
    for (const [name, row] of this._rows) {
      const bound = bindings.bound.filter((one) => one.target === name);
      const isLearning = bindings.learning === name;
      row.learn.classList.toggle("learning", isLearning);
      row.learn.classList.toggle("bound", bound.length > 0);
      setText(row.learn, isLearning ? "move it" : bound.length ? bound.map((one) => `CC ${one.number}`).join(", ") : "learn");
      const what = bound.length ? `${title(name)}: end the binding to a MIDI controller` : `${title(name)}: bind a MIDI controller`;
      row.learn.setAttribute("aria-label", isLearning ? `${title(name)}: move a MIDI controller now` : what);
      row.learn.title = what;
    }
  }

  /** @param {Control} control @returns {HTMLElement} */
  _row(control) {
    const widget = control.kind === "choice" ? this._choice(control) : control.kind === "switch" ? this._switch(control) : this._number(control);
    const learn = element("button", { type: "button", class: "learn", onclick: () => this._learn(control.name) }, "learn");
    const help = element("p", { class: "help", id: `help-${control.name}` }, control.help);
    const row = element("div", { class: `control ${control.kind}`, "data-control": control.name }, ...widget.parts, learn, help);
    row.addEventListener("dblclick", (event) => {
      if (event.target instanceof Element && event.target.closest("button, input[type=number], .help")) return;
      this._act.set(control.name, control.default);
      widget.show(control.default);
    });
    widget.show(control.value);
    this._rows.set(control.name, { show: widget.show, learn });
    return row;
  }

  /** @param {string} name */
  _learn(name) {
    const isBound = this._bindings.bound.some((one) => one.target === name);
    if (isBound) this._act.unlearn(name);
    else this._act.learn(name);
  }

  /** @param {Control} control @returns {Widget} */
  _number(control) {
    const isTyped = control.kind === "int" && control.high - control.low > MOST_STEPS * 10;
    const step = control.kind === "int" ? 1 : Number(((control.high - control.low) / MOST_STEPS).toPrecision(1));
    const id = `control-${control.name}`;
    const input = element("input", {
      id, type: isTyped ? "number" : "range", min: control.low, max: control.high, step,
      "aria-describedby": `help-${control.name}`, title: `double-click: ${valueText(control, control.default)}`,
    });
    const output = element("output", { for: id });
    let moved = -Infinity;
    const show = (/** @type {Value} */ value) => {
      if (performance.now() - moved > HELD) input.value = String(value);
      setText(output, valueText(control, value));
      input.setAttribute("aria-valuetext", valueText(control, value));
      const share = (Number(value) - control.low) / (control.high - control.low);
      input.style.setProperty("--share", String(Math.max(0, Math.min(1, share))));
    };
    input.addEventListener(isTyped ? "change" : "input", () => {
      if (input.value === "") return;
      moved = performance.now();
      show(input.valueAsNumber);
      this._act.set(control.name, input.valueAsNumber);
    });
    input.addEventListener("change", () => { moved = -Infinity; });
    return { show, parts: [element("label", { for: id }, title(control.name)), output, input] };
  }

  /** @param {Control} control @returns {Widget} */
  _switch(control) {
    const id = `control-${control.name}`;
    const input = element("input", { id, type: "checkbox", role: "switch", "aria-describedby": `help-${control.name}` });
    input.addEventListener("change", () => this._act.set(control.name, input.checked));
    const show = (/** @type {Value} */ value) => { input.checked = Boolean(value); };
    return { show, parts: [element("label", { for: id }, title(control.name)), input] };
  }

  /** @param {Control} control @returns {Widget} */
  _choice(control) {
    const label = element("span", { class: "label", id: `label-${control.name}` }, title(control.name));
    const group = choiceButtons(control, (value) => this._act.set(control.name, value));
    group.element.setAttribute("aria-labelledby", label.id);
    return { show: group.show, parts: [label, group.element] };
  }
}

/**
 * A radio group as buttons. Arrow keys move between them.
 * @param {Control} control @param {(value: string) => void} choose
 */
export function choiceButtons(control, choose) {
  const buttons = control.choices.map((choice) =>
    element("button", { type: "button", role: "radio", class: "choice", "data-value": choice, onclick: () => pick(choice) }, choice));
  const group = element("div", { role: "radiogroup", class: "choices", "aria-describedby": `help-${control.name}` }, ...buttons);
  const show = (/** @type {Value} */ value) => {
    for (const button of buttons) {
      const isChosen = button.dataset.value === value;
      button.setAttribute("aria-checked", String(isChosen));
      button.tabIndex = isChosen ? 0 : -1;
    }
  };
  const pick = (/** @type {string} */ value) => {
    show(value);
    choose(value);
  };
  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key] ?? 0;
    const at = buttons.findIndex((one) => one === document.activeElement);
    if (step === 0 || at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    const next = buttons[(at + step + buttons.length) % buttons.length];
    next.focus();
    pick(String(next.dataset.value));
  });
  return { element: group, show };
}
