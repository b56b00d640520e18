"""The daemon: between a MIDI input, a model and a MIDI output, in real time.

What is played goes this way, and only this way:

    ports, connections     the MIDI system; ports that come and go
    hearing, echo          each message sorted: music, clock, steering, an echo of our own
    inbox, order           what waits for the performer, in the order in which it sounded
    performer              what to do next: phrases (has the human ended?), turns, deciding (one event), pace, timeline
    player, ledger         the plan, sounded on time; every note-on gets its note-off

``session`` puts these on their threads and ``perform`` on real ports; ``render`` and ``demo`` do without. Steering is in
``controls`` (the one registry), reached by ``config``, ``cli``, ``osc`` (``osc_wire``, ``oscquery``) and ``midi_map``; musical
time is in ``clock`` (MIDI), with ``ticks``, and ``link``. ``recording`` and ``memories`` keep what was played; ``watchdog``
outlives us.
"""
