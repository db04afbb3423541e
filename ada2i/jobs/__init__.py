"""Jobs on a Ray cluster: its address, how jobs are submitted and followed, and what they report."""
