"""Parts of the audit: what is read, counted, probed and judged."""
