"""Pictures: decoded safely, without side data, and scaled the same everywhere."""
