"""Whether all that a run needs is there and works, and what to do where it does not: `ada2i doctor`.

Each file looks at one thing from outside, as a run would, and reads places and credentials from where a run does.
"""
