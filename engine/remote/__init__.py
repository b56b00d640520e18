"""The model in another process, on this computer or on another one.

wire            bytes <-> frames of numbers, text and arrays
protocol        the calls and answers, and their largest sizes
serve           the server: reads calls from standard input, writes answers to standard output
server_process  the client's side: the server's process and its pipes, with a timeout on every operation
address         the value of ``--engine`` -> the command that starts the server
runtime         a ``Runtime`` that calls a server
decided_ahead   several decisions in one call, for connections with latency
history         the events that a runtime has absorbed, to replay them on another one
standby         a ``Runtime`` that fails over to a second one when the first is lost
pipes           reading and writing pipes with a timeout
"""
