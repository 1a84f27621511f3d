"""Files in and out. Nothing here knows a network."""
