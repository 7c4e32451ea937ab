"""The judge service as a `Judge`: connections, uploads, retries."""
