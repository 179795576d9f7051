"""Faults injected into the store and its readers, and what became of the data: `make faults`."""
