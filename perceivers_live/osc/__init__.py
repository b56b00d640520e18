"""The OSC server, the OSCQuery tree of its addresses (``page.query`` serves it), and layouts for OSC clients."""
