"""What an adapter puts into a network, one kind a file; `pipeline.models.adapters` is the door."""
