"""Published benchmarks: their sets, the paths of their data, and the measurement of a system on these sets."""
