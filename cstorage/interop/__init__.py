"""Reading what containers/storage writes. Nothing in here changes a file of the original."""
