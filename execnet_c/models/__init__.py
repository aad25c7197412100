"""Threads, and execution models on top of them."""
