"""Weight files: reading, key names in other libraries, conversion, and matching with a model."""
