"""The inputs and checks of a model: tokens, pixels, and the completeness of its weights."""
