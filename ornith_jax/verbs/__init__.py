"""The command line, one file per family of verbs: each reads its words and calls one function."""
