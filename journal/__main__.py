"""``python -m journal``: the command line without an application."""

from journal.cli import main

main()
