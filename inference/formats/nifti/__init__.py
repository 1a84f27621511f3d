"""NIfTI."""
