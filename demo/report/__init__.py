"""What the demo found: its numbers, its sentences, its page and its pictures."""
