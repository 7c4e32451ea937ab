"""The page on which a person sees what a selection makes of the scores."""
