"""Pictures: safe decoding without side data, and the same scaling for every engine."""
