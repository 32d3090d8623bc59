"""A user's detector: what of it can be pretrained, the pretraining config, and the way back."""
