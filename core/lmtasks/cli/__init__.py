"""The command line: one module per command, which parses its options, calls the library and prints."""
