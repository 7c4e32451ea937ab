"""Embeds contents by any system: a model of ours, a sentence-transformers model, or an endpoint."""
