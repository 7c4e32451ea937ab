"""Published benchmarks: what their sets are, where they are looked for, and how one system is measured on them."""
