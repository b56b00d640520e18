"""Steers a running perceivers-live by OSC: python examples/osc_client.py (needs python-osc, which comes with perceivers-live)."""

from pythonosc.udp_client import SimpleUDPClient

client = SimpleUDPClient("127.0.0.1", 9010)
client.send_message("/perceivers/temperature", 1.1)  # a control: any of those that `/perceivers/list` replies with
client.send_message("/perceivers/mode", "duet")
client.send_message("/perceivers/takeover", [])  # a command
client.send_message("/perceivers/temperature", [])  # without a value: asks for it
for reply in client.get_messages(timeout=1):
    print(reply.address, *reply.params)
