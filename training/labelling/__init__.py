"""Labels for scans that have none: what several networks agree on, and outlines by hand."""
