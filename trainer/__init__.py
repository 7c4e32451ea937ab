"""Training and measuring: turns training rows into adapters, and adapters into numbers."""
