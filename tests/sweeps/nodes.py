"""A Ray cluster of several nodes on this machine, until stdin ends: ``python -m tests.sweeps.nodes NUMBER``.

Prints one line of JSON: the address, and the process id of each node's raylet, the head's first. Each line of stdin
names a node, from 0, that is then killed.
"""

import json
import sys

from ray.cluster_utils import Cluster


def main(number: int) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.head_node, *(cluster.add_node(num_cpus=1) for _ in range(number - 1))]
    cluster.wait_for_nodes()
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    sys.stdout.write(json.dumps({"address": cluster.address, "raylets": raylets}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        cluster.remove_node(nodes[int(line)], allow_graceful=False)
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
