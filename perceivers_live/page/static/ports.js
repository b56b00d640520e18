// The choice of input and output ports, and the figures of daemon and page.

import { element, setText } from "./dom.js";

/** @typedef {import("./messages.js").Ports} PortsMessage */
/** @typedef {import("./messages.js").Health} HealthMessage */
/** @typedef {(direction: "input" | "output", name: string) => void} Choose */

export const PAGE = "page";
const REST = 1000; // milliseconds after which a choice that was moved by keys applies; Enter applies it at once

/** Shows the daemon's ports; the user can choose others. */
export class Ports {
  /** @param {HTMLElement} where @param {Choose} choose */
  constructor(where, choose) {
    this._lists = /** @type {const} */ (["input", "output"]).map((direction) => {
      const id = `port-${direction}`;
      const select = element("select", { id });
      const state = element("p", { class: "state", id: `${id}-state` });
      select.setAttribute("aria-describedby", state.id);
      const label = element("label", { for: id }, direction === "input" ? "Input" : "Output");
      const list = { direction, select, state, label, shown: "", wanted: "", timer: 0 };
      let isByKey = false; // whether an arrow key or a letter moves the choice: it then passes over ports that are not meant
      const apply = () => {
        clearTimeout(list.timer);
        list.timer = 0;
        if (select.value === list.wanted) return;
        choose(direction, select.value);
        select.value = list.wanted; // until the daemon has changed the port: it may be impossible
      };
      select.onpointerdown = () => { isByKey = false; };
      select.onkeydown = ({ key }) => {
        isByKey = key !== "Enter";
        if (key === "Enter") apply();
      };
      select.onchange = () => {
        clearTimeout(list.timer);
        if (isByKey) list.timer = setTimeout(apply, REST);
        else apply();
      };
      select.onblur = apply;
      return list;
    });
    where.replaceChildren(...this._lists.map((one) => element("div", { class: "port" }, one.label, one.select, one.state)));
  }

  /** @param {PortsMessage} ports */
  show(ports) {
    for (const list of this._lists) {
      const port = ports[list.direction];
      const names = list.direction === "input" ? ports.inputs : ports.outputs;
      const all = [...new Set([PAGE, "", ...numbered(names), port.wanted])];
      const shown = JSON.stringify(all);
      if (shown !== list.shown) {
        list.shown = shown;
        list.select.replaceChildren(...all.map((name) => element("option", { value: name }, portTitle(name))));
      }
      list.wanted = port.wanted;
      if (list.timer === 0) list.select.value = port.wanted;
      setText(list.state, port.state === "open" ? (port.wanted === PAGE ? "" : port.name) : port.text || "waiting for the port");
      list.state.dataset.state = port.state;
    }
  }
}

/** Names by which the daemon tells ports of the same name apart: "Piano", "Piano#2". @param {string[]} names */
function numbered(names) {
  return names.map((name, i) => {
    const earlier = names.slice(0, i).filter((other) => other === name).length;
    return earlier ? `${name}#${earlier + 1}` : name;
  });
}

/** @param {string} name */
function portTitle(name) {
  return name === PAGE ? "This page" : name === "" ? "A virtual port" : name;
}

/** @type {[name: string, title: string, unit: string, doubtful: number][]} beyond `doubtful` it is worth a look */
const FIGURES = [
  ["decision_ms_p50", "Time per event (median)", "ms", 10],
  ["decision_ms_p99", "Time per event (99 %)", "ms", 25],
  ["lateness_ms_p50", "Output lateness (median)", "ms", 1],
  ["lateness_ms_p99", "Output lateness (99 %)", "ms", 5],
  ["late", "Late events", "", 0],
  ["unsent", "Events not sent", "", 0],
  ["history", "Length of the history", "events", Infinity],
  ["faults", "Faults of the model", "", 0],
  ["recoveries", "Recoveries", "", 0],
  ["dropped", "Dropped in overload", "", 0],
  ["echoes", "Echoes ignored", "", 0],
];

export class Health {
  /** @param {HTMLElement} where */
  constructor(where) {
    this._list = element("dl", { class: "figures" });
    where.replaceChildren(this._list);
    /** @type {Map<string, HTMLElement>} */
    this._values = new Map();
  }

  /** @param {HealthMessage} health @param {Record<string, string>} own figures of the page's own */
  show(health, own) {
    this._show("Runtime", health.runtime, false);
    for (const [name, label, unit, doubtful] of FIGURES) {
      const value = health.figures[name];
      const text = value === undefined ? "–" : `${figure(value)}${unit && ` ${unit}`}`;
      this._show(label, text, value !== undefined && value > doubtful);
    }
    for (const [label, text] of Object.entries(own)) this._show(label, text, false);
  }

  /** @param {string} label @param {string} text @param {boolean} isDoubtful */
  _show(label, text, isDoubtful) {
    let value = this._values.get(label);
    if (!value) {
      value = element("dd");
      this._values.set(label, value);
      this._list.append(element("dt", {}, label), value);
    }
    setText(value, text);
    value.classList.toggle("doubtful", isDoubtful);
  }
}

/** @param {number} value */
function figure(value) {
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(value < 10 ? 2 : 1);
}
