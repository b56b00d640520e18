"""The model in another process, on this machine or on another one.

wire        bytes <-> frames of numbers, text and arrays
protocol    what can be asked, what is answered, how large each may be
serve       the process that computes: answers on standard input and output
link        the pipes to such a process, with a limit on every wait
address     what ``--engine`` says -> the command that starts the process
runtime     a ``Runtime`` that asks such a process
standby     a ``Runtime`` that goes on with a second one when the first is lost
"""
