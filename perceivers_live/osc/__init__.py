"""The OSC server, the tree that OSCQuery describes (`page.query` serves it), and layouts for their clients."""
