"""What `python -m execnet_c` runs."""
