"""Files of weights: reading, names in other libraries, conversion, matching with a model."""
