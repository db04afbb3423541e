"""What the pipeline runs on: images, manifests, and the local stack without containers."""
