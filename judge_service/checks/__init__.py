"""What a machine lacks to serve a judge, and whether a running service gives the model's own scores."""
