"""What makes any Python a far end, and what it is sent then."""
