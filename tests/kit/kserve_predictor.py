"""A predictor made with KServe's SDK, which answers V1 and V2, and a path of OpenAI's.

``python -m tests.kit.kserve_predictor --http_port N --model_name NAME``. The answer of a chat
repeats the words of the question, in one event each.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import kserve
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from kserve import InferOutput, InferRequest, InferResponse, model_server
from kserve.model_server import app


class Doubler(kserve.Model):  # type: ignore[misc]
    """Doubles numbers, in both versions of the protocol."""

    def load(self) -> bool:
        self.ready = True
        return True

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        if not isinstance(payload, InferRequest):
            return {"predictions": [2 * value for value in payload["instances"]]}
        doubled = InferOutput("y", list(payload.inputs[0].shape), "FP32")
        doubled.set_data_from_numpy(payload.inputs[0].as_numpy() * 2, binary_data=False)
        return InferResponse(payload.id or "1", self.name, [doubled])


router = APIRouter()


@router.post("/openai/v1/chat/completions")
async def chat(request: Request) -> Response:
    asked = await request.json()
    words = asked["messages"][-1]["content"].split()
    if not asked.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", "content": " ".join(words)}}
        return JSONResponse({"model": asked["model"], "choices": [choice]})

    async def events() -> AsyncIterator[str]:
        for word in words:
            delta = {"model": asked["model"], "choices": [{"delta": {"content": word}}]}
            yield f"data: {json.dumps(delta)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


if __name__ == "__main__":
    options, _ = model_server.parser.parse_known_args()
    app.include_router(router)
    model = Doubler(options.model_name)
    model.load()
    kserve.ModelServer(http_port=options.http_port, workers=1, enable_grpc=False).start([model])
