"""A replica: the HTTP application around a judge, its health, and its deployment on Ray Serve."""
