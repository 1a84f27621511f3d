"""Stands in for another program, for scripts that were written for it."""

from .api import totalsegmentator

__all__ = ["totalsegmentator"]
