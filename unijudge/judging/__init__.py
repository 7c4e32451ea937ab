"""What a judge is: its prompt, its verdicts, what crosses HTTP, and what a pair costs."""
