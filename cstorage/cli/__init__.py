"""The command line ``cstorage``: parsing and printing only; everything else is the store's.

``table`` lists every command once; ``main`` parses with ``goflags`` and dispatches to one module
per verb family; ``clickapp`` shows the same table as a click group (help, usage, completion).
"""
