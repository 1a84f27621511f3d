"""The program: arguments, the loop over cases, worker processes, what it says."""
