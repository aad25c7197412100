"""Starting and reaching far ends: what of this package only the near end runs."""
