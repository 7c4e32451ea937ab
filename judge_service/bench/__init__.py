"""How good a judge is: labelled pairs are scored by a running service, and measured (`judge bench`)."""
