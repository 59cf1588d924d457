"""The explorer for a classroom: many visitors, one machine."""

NOTEBOOK = "FIELDMARKS_NOTEBOOK"  # the variable that tells the fork server what to open
