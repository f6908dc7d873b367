"""Graph drivers: where layers live as file trees, behind one contract (``contract.py``)."""
