"""Pictures of boxes, views, proposal stores and curves, drawn from plain arrays."""
