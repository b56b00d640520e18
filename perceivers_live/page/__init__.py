"""The page: a view of the music and a steering wheel for it, served to browsers on loopback.

    door        who may connect, how many, how fast
    routes      what an HTTP request is answered with: static files, OSCQuery, recordings
    protocol    the messages between page and daemon: their fields, limits and reading
    client      one connected page: a bounded outbox, a limited inbox
    hub         takes notes of the music without making it wait, and tells the pages
    keys        the page as a MIDI input and output
    library     the recordings of earlier sessions
    server      puts these on one port

The browser's half is in ``static``: plain ES modules, nothing from the network.
"""
