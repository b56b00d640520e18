"""Sets controls of a running perceivers-live by OSC: python examples/osc_client.py.

It needs python-osc, which comes with perceivers-live.
"""

from pythonosc.udp_client import SimpleUDPClient

client = SimpleUDPClient("127.0.0.1", 9010)
client.send_message("/perceivers/temperature", 1.1)  # a control; `/perceivers/list` lists all
client.send_message("/perceivers/mode", "duet")
client.send_message("/perceivers/takeover", [])  # a command
client.send_message("/perceivers/temperature", [])  # without a value: requests the current one
for reply in client.get_messages(timeout=1):
    print(reply.address, *reply.params)
