"""The store: façade, transactions, commit and read protocol."""
