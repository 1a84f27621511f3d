"""Training of the networks: plans, synthesis, the loop, evaluation. Nothing in `inference` imports this package."""
