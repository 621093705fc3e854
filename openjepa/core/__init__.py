"""Ground floor: pure tensor functions. No modules, no settings, no files, no prints, no global randomness."""
