"""Can these networks be averaged? Checkpoints from a disk, their paths, and an answer with its reasons.

No sweep, no spec and no store: two state dicts or more, a module of their architecture, and examples.
"""
