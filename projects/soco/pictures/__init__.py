"""Pictures of boxes, views, proposal stores and curves, from plain arrays."""
