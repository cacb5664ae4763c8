"""Which machine Ray's autoscaler starts next: a spot machine, or an on-demand one while the cloud has no spot left.

Ray's own autoscalers do not fall back. The older one records which type of machine was refused, but its scorer ignores
it; the newer one considers machines that arrived but did not start, and not those that were refused. Only the older one
accepts a custom scorer: ``RAY_enable_autoscaler_v2=0``, ``RAY_AUTOSCALER_UTILIZATION_SCORER``.
"""

from typing import Any

from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer


def score_machine(
    node_resources: dict[str, Any],
    resources: list[dict[str, Any]],
    node_type: str,
    *,
    node_availability_summary: Any,
) -> tuple[Any, ...] | None:
    """Ray's score of a type of machine for a request, followed by whether the cloud has such machines.

    Two types that differ only in how they are paid for have one score; then the one that was not refused lately wins.
    A refusal counts for half an hour (``AUTOSCALER_NODE_AVAILABILITY_MAX_STALENESS_S``). If both are available, Ray
    takes the later name in the alphabet: ``gpu_spot`` before ``gpu_on_demand``.

    Returns:
        A tuple that is larger for a better type; None if no request fits the type.
    """
    score = _default_utilization_scorer(
        node_resources, resources, node_type, node_availability_summary=node_availability_summary
    )
    if score is None:
        return None
    record = node_availability_summary.node_availabilities.get(node_type)
    return (*score, record is None or record.is_available)
