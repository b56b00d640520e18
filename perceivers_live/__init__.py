"""The daemon: connects a MIDI input, a model and a MIDI output in real time.

Data flows in one direction:

    midi              ports, connections, echoes
    session.input     classifies each message: music, clock, bound controller, echo of our own output
    session.reaction  reacts before the model does: a key press silences the machine
    session.inbox     queues what was played for the performer, in order
    performer         decides what to play: phrases, turns, start, decision (one event), pulse, timeline
    player            sends the plan on time; its ledger owns the output: each note-on gets one note-off

``session`` runs these on threads, ``commands.perform`` connects them to real ports. ``session.offline`` and ``commands.demo`` run
without ports. Recorder, page, OSC and log are observers of a session. ``controls`` is the registry of all controls, which the
settings, ``cli``, ``osc``, ``page`` and bound MIDI controllers set. ``page`` shows the session in a browser, and is a keyboard
and a piano there. ``clock`` is musical time. ``recording`` and ``session.saved_states`` write what was played to disk.
``tests/test_layers.py`` states which folder may import which.
"""
