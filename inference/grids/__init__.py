"""Between the scan's grid and a network's."""
