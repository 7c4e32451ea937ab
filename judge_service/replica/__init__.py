"""One replica: the application around its judge, its health, and how it runs on Ray Serve."""
