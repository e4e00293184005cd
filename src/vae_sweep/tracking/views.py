"""A view of a sweep's charts in the MLflow UI: images with a slider first, then losses; what "Share" stores there.

Without it the UI draws one chart for each metric. The format is that of MLflow 3.13 to 3.17.
"""

from __future__ import annotations

import json
from typing import Any

from vae_sweep.tracking.names import VIEW
from vae_sweep.tracking.pages import condition
from vae_sweep.tracking.store import Store

SHARED = "mlflow.sharedViewState"  # begins a tag of an experiment
IMAGES, LOSSES = "images", "losses"  # sections of the page
STATE = {  # of the page, but for its charts
    "orderByKey": "metrics.`test/loss`",  # ordered by anything but time, runs are not folded into their sweep
    "orderByAsc": True,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "modelVersionFilter": "All Runs",
    "selectedColumns": ["attributes.`Dataset`", "metrics.`test/loss`", "params.`model.name`", "params.`params.name`"],
    "runsHiddenMode": "SHOW_ALL",
    "isAccordionReordered": True,
    "useGroupedValuesInCharts": True,
    "hideEmptyCharts": True,
    "autoRefreshEnabled": True,
    "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    **{key: [] for key in ("datasetsFilter", "columnOrder", "runsPinned", "runsHidden")},
    **{key: {} for key in ("columnWidths", "runsExpanded", "runsVisibilityMap", "groupsExpanded")},
    **{key: False for key in ("viewMaximized", "runListHidden")},
    "groupBy": None,
}


def save_view(store: Store, sweep_id: str) -> None:
    """Store the view of a sweep for the UI; :func:`vae_sweep.tracking.pages.pages` has its address.

    Raises:
        StoreError: where the store fails.
    """
    run, search = store.client.get_run(sweep_id), condition(sweep_id, store.children(sweep_id))
    store.client.set_experiment_tag(run.info.experiment_id, f"{SHARED}.{sweep_id}", json.dumps(_state(search)))
    store.record(sweep_id).set_tags({VIEW: sweep_id})


def _state(search: str) -> dict[str, Any]:
    charts = [
        _chart(
            "IMAGE", IMAGES, imageKeys=["samples", "reconstructions", "interpolations"], step=1, showRunParams=False
        ),
        _chart("LINE", LOSSES, metricKey="val/loss", selectedMetricKeys=["val/loss"], useGlobalXaxisKey=True),
        _chart("BAR", LOSSES, metricKey="test/loss"),
        _chart("PARALLEL", LOSSES, selectedParams=["model.name", "params.name"], selectedMetrics=["test/loss"]),
    ]
    sections = [
        _section(IMAGES, "Images after an epoch: move the slider", columns=1, cardHeight=720),
        _section(LOSSES, "Losses"),
    ]
    return {"searchFilter": search} | STATE | {"compareRunCharts": charts, "compareRunSections": sections}


def _chart(kind: str, section: str, **more: Any) -> dict[str, Any]:
    same = {"metricSectionId": section, "runsCountToCompare": 100, "deleted": False, "isGenerated": False}
    return {"uuid": f"vae_sweep-{kind}", "type": kind, **same, **more}


def _section(key: str, name: str, **more: Any) -> dict[str, Any]:
    return {"uuid": key, "name": name, "display": True, "isReordered": True, "deleted": False, **more}
