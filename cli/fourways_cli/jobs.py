"""Jobs made from a deployment's CronJob: a run now, a resumed run, a rollback. Pure.

They are what ``kubectl create job --from=cronjob/…`` creates, with as few changes as possible. The
cluster decides who may create them: anyone with the right to create Jobs in the namespace.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from fourways_api import PurgeConfig
from fourways_api.runtime_config import RUN_VARIABLE
from fourways_operator.facts import OperatorSettings
from fourways_operator.plan import purge
from fourways_operator.plan.everywhere import dressed, installed_like
from fourways_operator.plan.parts import QUEUE_LABEL, ROLLBACK_LABEL

Json = dict[str, Any]


def run_job(cron: Json, resume: str | None = None, priority: str | None = None) -> Json:
    """Return the Job of a run; ``resume`` names an earlier run that it resumes.

    ``priority`` is the PriorityClass of its pods; None keeps the deployment's.
    """
    job = _from(cron)
    if priority is not None:
        job["spec"]["template"]["spec"]["priorityClassName"] = priority
    if resume is not None:
        _name_run(job, resume)
    return job


def rollback_job(cron: Json, run: str) -> Json:
    """Return the Job that rolls back to an earlier run."""
    job = _from(cron)
    labels = job["metadata"]["labels"]
    labels[ROLLBACK_LABEL] = "true"
    # It scores nothing, so it need not wait in a queue.
    labels.pop(QUEUE_LABEL, None)
    job["spec"] |= {"completions": 1, "parallelism": 1}
    _container(job)["args"] = ["rollback"]
    _name_run(job, run)
    return job


class NoImage(ValueError):
    """A Job's image is not known; the text says how to give it."""


def purge_job(
    config: PurgeConfig, gateway: Json | None, image: str | None, secret: str | None
) -> Json:
    """Return the Job that lists or removes what the store holds of a name.

    Image, pull Secrets and store Secret are those of ``gateway``, the pod template of the
    namespace's gateway, unless given. Raises NoImage.
    """
    pod = gateway["spec"] if gateway else {"containers": [{}], "volumes": []}
    image = image or pod["containers"][0].get("image")
    if not image:
        raise NoImage("the namespace has no gateway to take the image from: give --image")
    secrets = [v["secret"]["secretName"] for v in pod["volumes"] if v["name"] == "store"]
    settings = OperatorSettings(runtime_image=image)
    settings = replace(
        settings,
        store_secret=secret or next(iter(secrets), settings.store_secret),
    )
    settings = installed_like(pod, settings)
    (job,) = dressed([purge.job(config, image, settings)], settings)
    del job["metadata"]["name"]
    job["metadata"]["generateName"] = f"{config.name}-purge-"
    return job


def _from(cron: Json) -> Json:
    template = copy.deepcopy(cron["spec"]["jobTemplate"])
    meta = cron["metadata"]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": meta["name"],
        "uid": meta.get("uid", ""),
        # The CronJob's history limits then apply to it.
        "controller": True,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": dict(template["metadata"].get("labels", {})),
            "annotations": {"cronjob.kubernetes.io/instantiate": "manual"},
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }


def _name_run(job: Json, run: str) -> None:
    container = _container(job)
    others = [v for v in container["env"] if v["name"] != RUN_VARIABLE]
    container["env"] = [*others, {"name": RUN_VARIABLE, "value": run}]


def _container(job: Json) -> Json:
    """Return the worker's container: admission controllers may have added others."""
    containers: list[Json] = job["spec"]["template"]["spec"]["containers"]
    return next(c for c in containers if any(v["name"] == RUN_VARIABLE for v in c.get("env") or []))
