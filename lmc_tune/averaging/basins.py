"""Which of several networks belong together, from the pairs of them that are connected."""

from collections.abc import Collection

import networkx as nx

Indices = tuple[int, ...]


def groups(n: int, connected: Collection[tuple[int, int]]) -> tuple[Indices, ...]:
    """Members in groups of which every pair is connected: the largest such group, then the largest of the rest, …

    Connectivity is not transitive: a member may fit into several groups, and is in the first. Among equally large
    groups, that with the earliest members comes first.
    """
    left, found = set(range(n)), []
    while left:
        graph = nx.Graph()
        graph.add_nodes_from(sorted(left))
        graph.add_edges_from((i, j) for i, j in connected if i in left and j in left)
        largest = max(
            (tuple(sorted(clique)) for clique in nx.find_cliques(graph)), key=lambda one: (len(one), *_early(one))
        )
        found.append(largest)
        left -= set(largest)
    return tuple(found)


def chains(n: int, connected: Collection[tuple[int, int]]) -> tuple[Indices, ...]:
    """Members that are joined by connected pairs, one after the other; the largest first."""
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(connected)
    parts = (tuple(sorted(part)) for part in nx.connected_components(graph))
    return tuple(sorted(parts, key=lambda part: (-len(part), part)))


def widest_window(n: int, connected: Collection[tuple[int, int]]) -> Indices:
    """The longest run of neighbours of which every pair is connected; the latest of equally long ones."""
    best: Indices = (n - 1,)
    for start in reversed(range(n)):
        end = start
        while end + 1 < n and all((at, end + 1) in connected for at in range(start, end + 1)):
            end += 1
        if end - start + 1 > len(best):
            best = tuple(range(start, end + 1))
    return best


def _early(members: Indices) -> Indices:
    return tuple(-member for member in members)
