"""Layer archives: tar in, tar out, compression, whiteouts, changes, recipes."""
