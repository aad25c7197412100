"""The plain-Python core, the twin of the C extension `_core`: `pycore` has the same names."""
