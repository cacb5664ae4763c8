"""The report: one self-contained page, and pictures of its diagram."""
