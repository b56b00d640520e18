// MIDI keyboards at this computer, through the browser: for whoever has no MIDI system that the daemon could use.

/**
 * Listens to every MIDI input that the browser has, and to those that come.
 * @param {(message: number[], at: number) => void} play told of channel messages, and when on the page's clock (seconds)
 * @param {(names: string[]) => void} onChange told of the inputs there are
 * @returns {Promise<boolean>} whether the browser allows it
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
