"""Vision-language models as encoders: opening a model, adapting it, and preparing its inputs."""
