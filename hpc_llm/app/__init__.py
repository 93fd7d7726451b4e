"""The command line: verbs, help, and errors told in one line."""
