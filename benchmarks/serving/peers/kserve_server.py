"""KServe's SDK: one worker, no gRPC, no logs, the protocol's own objects."""

import logging
import sys

import numpy as np
import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid

logging.disable(logging.WARNING)


class Served(Model):  # type: ignore[misc,unused-ignore]
    """The model, with the interface that KServe requires."""

    def __init__(self) -> None:
        super().__init__("model")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(sys.argv[1], options)
        self.ready = True

    async def predict(
        self, payload: InferRequest, headers: object = None, response_headers: object = None
    ) -> InferResponse:
        """Answer an inference request."""
        scores = self.session.run(None, {"input": payload.inputs[0].as_numpy()})[0][:, 0]
        output = InferOutput("score", list(scores.shape), "FP32")
        output.set_data_from_numpy(np.ascontiguousarray(scores), binary_data=False)
        return InferResponse(payload.id or generate_uuid(), "model", [output])


server = ModelServer(
    http_port=int(sys.argv[2]), workers=1, enable_grpc=False, enable_latency_logging=False
)
server.start([Served()])
