"""MLServer in one process: no workers, no gzip, no metrics, no logs."""

import asyncio
import logging
import sys

import numpy as np
import onnxruntime
import uvloop
from mlserver import MLModel, MLServer, ModelSettings, Settings  # type: ignore[import-not-found]
from mlserver.types import (  # type: ignore[import-not-found]
    InferenceRequest,
    InferenceResponse,
    ResponseOutput,
)


class Served(MLModel):  # type: ignore[misc,unused-ignore]
    """The model, with the interface that MLServer requires."""

    async def load(self) -> bool:
        """Load the model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(sys.argv[1], options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer an inference request without the codecs, which cost more."""
        tensor = payload.inputs[0]
        values = np.array(tensor.data.root, np.float32).reshape(tensor.shape)
        scores = self.session.run(None, {"input": values})[0][:, 0]
        output = ResponseOutput(
            name="score", shape=[len(scores)], datatype="FP32", data=scores.tolist()
        )
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main() -> None:
    """Serve until terminated."""
    port = int(sys.argv[2])
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=port + 1,
        metrics_endpoint=None,
        debug=False,
        parallel_workers=0,
        gzip_enabled=False,
        load_models_at_startup=False,
    )
    server = MLServer(settings)
    logging.disable(logging.WARNING)
    await server.start([ModelSettings(name="model", implementation=Served)])


uvloop.install()
asyncio.run(main())
