"""Vision-language models as encoders: how they are opened, adapted, and given their inputs."""
