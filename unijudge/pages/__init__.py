"""HTML pages, charts and Markdown cards, made from manifests and numbers."""
