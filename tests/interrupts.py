"""Ctrl-C for processes that tests start."""

#: First statement of a program: a shell that starts the tests in the background lets them, and all that they start,
#: ignore Ctrl-C, and Python then leaves it ignored.
TAKES_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
