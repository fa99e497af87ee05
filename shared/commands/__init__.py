"""The command line: one file a group of commands; ``cli`` puts them together."""
