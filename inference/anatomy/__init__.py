"""All that knows of bodies and organs."""
