"""What runs networks: one module each, imported only when it is chosen."""
