"""What both cores, and both ends, use."""
