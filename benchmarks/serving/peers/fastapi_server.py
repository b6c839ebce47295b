"""FastAPI on uvicorn: orjson in and out, no pydantic model, uvloop and httptools, no logs."""

import sys
from typing import Any

import numpy as np
import onnxruntime
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
app = FastAPI()


@app.get("/v2/health/ready")
async def ready() -> dict[str, bool]:
    """Answer the benchmark's readiness request."""
    return {"ready": True}


@app.post("/v2/models/model/infer")
async def infer(request: Request) -> Response:
    """Answer an inference request."""
    tensor: dict[str, Any] = orjson.loads(await request.body())["inputs"][0]
    values = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
    scores = session.run(None, {"input": values})[0]
    output = {"name": "score", "datatype": "FP32", "shape": [len(scores)], "data": scores[:, 0]}
    answer = {"model_name": "model", "model_version": "v1", "outputs": [output]}
    body = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY, default=np.ndarray.tolist)
    return Response(body, media_type="application/json")


uvicorn.run(
    app,
    host="127.0.0.1",
    port=int(sys.argv[2]),
    loop="uvloop",
    http="httptools",
    access_log=False,
    log_level="warning",
)
