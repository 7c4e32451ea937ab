"""Everything of a model but its forward pass: tokens, pixels, and whether its weights are whole."""
