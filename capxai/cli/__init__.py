"""The command line: one file per verb. It parses, calls a recipe and renders the report; nothing below it prints."""
