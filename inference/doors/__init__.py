"""Doors: entries of this program to where people work already. Each is thin, and loaded by nobody else."""
