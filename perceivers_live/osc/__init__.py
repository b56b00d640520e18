"""OSC and OSCQuery servers, and layouts for their clients."""
