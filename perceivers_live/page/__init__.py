"""The page: shows the music and sets the controls in a browser; served on loopback by default.

    listening_socket  limits connections: allowed hosts, number, rate
    routes            HTTP responses: static files, OSCQuery, recordings
    protocol          the messages between page and daemon: fields, limits, parsing
    client            one connected page: a bounded outbox, a rate limit for its messages
    feed              converts events of the session to messages
    requests          executes the messages of the pages
    query             OSCQuery: HTTP and WebSocket
    hub               queues events of the session without blocking, and sends them to the pages
    keys              the page as a MIDI input and output
    recordings        the recordings of earlier sessions
    server            serves all of these on one port

The browser's code is in ``static``: plain ES modules without external resources.
"""
