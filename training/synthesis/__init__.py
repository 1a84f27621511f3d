"""Volumes rendered from label maps: made to be trained on with their labels."""
