"""The part of the service between clients and the judge: keys, limits on requests, and the queue."""
