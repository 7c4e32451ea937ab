"""How the two tiny models of the demo are taught."""
