"""The daemon: between a MIDI input, a model and a MIDI output, in real time.

What is played goes this way, and only this way:

    midi              ports, connections, echoes
    session.input     each message sorted: music, clock, steering, an echo of our own
    session.reaction  what cannot wait for the model: a key press silences the machine
    session.inbox     what waits for the performer, in the order in which it sounded
    performer         what to do next: phrases (has the human ended?), turns, decision (one event), pace, timeline
    player            the plan, sounded on time; the ledger owns the output: every note-on gets its note-off

``session`` puts these on their threads, ``commands.perform`` on real ports; ``session.offline`` and ``commands.demo`` do without.
Recorder, page, OSC and log are observers of a session: told what sounds and what is planned.
``controls`` is the one registry of what can be steered, reached by the settings, ``cli``, ``osc`` and bound MIDI controllers.
``page`` shows all of it in a browser, and is a keyboard and a piano for whoever has none: it is told, and nobody waits for it.
``clock`` is musical time, ``recording`` and ``session.saved_states`` keep what was played. Which folder may import which is in
``tests/test_layers.py``.
"""
