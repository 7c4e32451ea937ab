"""The demo: a synthetic world, tiny models that are checked in, and the commands of the whole pipeline."""
