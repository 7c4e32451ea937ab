"""A scored dataset, to publish and to pull."""
