"""HTML pages, charts and Markdown cards, which are made from manifests and numbers."""
