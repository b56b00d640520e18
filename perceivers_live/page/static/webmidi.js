// MIDI keyboards through the browser (Web MIDI), without a MIDI system that the daemon can use.

/**
 * Listens to all MIDI inputs of the browser, including those connected later.
 * @param {(message: number[], at: number) => void} play called with each channel message and its time on the page's clock (seconds)
 * @param {(names: string[]) => void} onChange called with the names of the inputs
 * @returns {Promise<boolean>} whether the browser permits it
 */
export async function listenToMidi(play, onChange) {
  if (!("requestMIDIAccess" in navigator)) return false;
  try {
    const access = await navigator.requestMIDIAccess();
    const listen = () => {
      const inputs = [...access.inputs.values()].filter((input) => input.state === "connected");
      for (const input of inputs) {
        input.onmidimessage = (event) => {
          const message = event.data ? [...event.data] : [];
          if (message.length > 0 && message[0] >= 0x80 && message[0] < 0xf0) play(message, event.timeStamp / 1000);
        };
      }
      onChange(inputs.map((input) => input.name ?? "MIDI input"));
    };
    access.onstatechange = listen;
    listen();
    return true;
  } catch {
    return false;
  }
}
