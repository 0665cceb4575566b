"""The command line: each command parses, calls one function of `lmtasks.api`, and prints."""
