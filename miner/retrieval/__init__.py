"""The first stage of a scoring job: finds the candidates of each query."""
