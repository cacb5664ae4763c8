"""Networks whose layers lie at positions of their own between two members: which layer carries the barrier?"""
