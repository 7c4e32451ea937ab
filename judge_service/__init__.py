"""HTTP in, verdicts out: a cluster of judges behind one method."""
