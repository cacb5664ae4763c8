"""Child seeds by label: the only source of randomness in lmc-tune."""

import hashlib


def child_seed(seed: int, *labels: str | int) -> int:
    """Derive a seed from ``seed`` and a sequence of labels.

    The same arguments give the same seed on every machine and Python version, and different labels give
    independent seeds (blake2b; never ``hash()``, which is salted per process).

    Args:
        seed: the parent seed.
        labels: what the child is for, e.g. ``child_seed(0, "order", replicate, epoch)``. Type matters:
            ``1`` and ``"1"`` are different labels.

    Returns:
        An integer in [0, 2**63), accepted by ``torch.Generator.manual_seed`` and ``numpy.random.default_rng``.
    """
    text = "\x1f".join([str(seed), *(repr(label) for label in labels)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
