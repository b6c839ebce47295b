"""BentoML in one process: no workers, no logs, no metrics, no traces, uvloop and httptools."""

import logging
import sys
from typing import Any

import bentoml  # type: ignore[import-not-found,unused-ignore]
import numpy as np
import onnxruntime
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

logging.disable(logging.WARNING)


async def ready(request: object) -> Response:
    """Answer the benchmark's readiness request."""
    return Response(b"{}")


@bentoml.asgi_app(Starlette(routes=[Route("/ready", ready)]), path="/v2/health")  # type: ignore[misc,unused-ignore]
@bentoml.service(  # type: ignore[misc,unused-ignore]
    metrics={"enabled": False},
    tracing={"sample_rate": 0.0},
    logging={"access": {"enabled": False}},
    traffic={"timeout": 30},
)
class Served:
    """The model, with the interface that BentoML requires."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(sys.argv[1], options)

    @bentoml.api(route="/v2/models/model/infer")  # type: ignore[untyped-decorator,misc,unused-ignore]
    async def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Answer an inference request."""
        tensor = inputs[0]
        values = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        scores = self.session.run(None, {"input": values})[0][:, 0]
        output = {
            "name": "score",
            "datatype": "FP32",
            "shape": [len(scores)],
            "data": scores.tolist(),
        }
        return {"model_name": "model", "outputs": [output]}


uvicorn.run(
    Served.to_asgi(),  # type: ignore[attr-defined,unused-ignore]
    host="127.0.0.1",
    port=int(sys.argv[2]),
    loop="uvloop",
    http="httptools",
    access_log=False,
    log_level="warning",
)
