"""Measuring, scoring and showing what inference does. Imported by nothing in inference."""
