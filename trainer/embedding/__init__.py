"""Embeds contents with any system: a model of this project, a sentence-transformers model, or an endpoint."""
