"""What stands between a caller and the judge: who may ask, how much, and who waits for how long."""
