"""The judge as an HTTP service: replicas of a model that score pairs of a query and a candidate."""
