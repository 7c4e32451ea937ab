"""The judge: its prompt, its verdicts, the HTTP protocol, and the cost of a pair."""
