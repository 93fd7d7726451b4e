"""The command line: verbs, help, and one-line errors."""
