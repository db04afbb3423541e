"""Jobs on a Ray cluster: where it is, how one is submitted and followed, and what it tells."""
