"""From rows of any layout to a corpus, and to a folder of published scores."""
