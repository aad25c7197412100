"""The far end: what runs there, and what makes any Python there run it."""
