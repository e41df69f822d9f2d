"""Has MLServer, a KServe v2 server, run the models of a repository that `fer-tf export --repository` wrote.

    python3 -m venv .venv-mlserver && .venv-mlserver/bin/pip install -r benchmarks/peers/mlserver.txt
    .venv-mlserver/bin/python benchmarks/peers/mlserver_onnx.py REPOSITORY --port 8080
    .venv/bin/fer-tf image face.jpg --backend kserve://127.0.0.1:8080

MLServer has no runtime for ONNX of its own: `Onnx` is one, on ONNX Runtime.
"""

import argparse
import asyncio
from pathlib import Path

import numpy as np
import onnxruntime
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor

TYPES = {"tensor(uint8)": "UINT8", "tensor(float)": "FP32"}


class Onnx(MLModel):
    """Runs model.onnx; MLServer calls it from its event loop."""

    async def load(self) -> bool:
        """Read the file and say what goes in and out."""
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri)
        self.inputs, self.outputs = (
            [
                MetadataTensor(
                    name=p.name, datatype=TYPES[p.type], shape=[n if isinstance(n, int) else -1 for n in p.shape]
                )
                for p in ports
            ]
            for ports in (self.session.get_inputs(), self.session.get_outputs())
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        given = {tensor.name: NumpyCodec.decode_input(tensor).astype(np.uint8) for tensor in payload.inputs}
        names = [port.name for port in self.session.get_outputs()]
        found = zip(names, self.session.run(names, given), strict=True)
        outputs = [NumpyCodec.encode_output(name, value) for name, value in found]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)


def main() -> None:
    """Serve every model, the highest version of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path)
    parser.add_argument("--port", type=int, default=8080)
    given = parser.parse_args()
    ports = {"http_port": given.port, "grpc_port": given.port + 1, "metrics_port": given.port + 2}
    server = MLServer(Settings(host="127.0.0.1", parallel_workers=0, metrics_endpoint=None, **ports))
    models = []
    for folder in sorted(path.parent for path in given.repository.glob("*/config.pbtxt")):
        version = max(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())
        uri = ModelParameters(uri=str(version / "model.onnx"), version=version.name)
        models.append(ModelSettings(name=folder.name, implementation=Onnx, parameters=uri))
    asyncio.run(server.start(models))


if __name__ == "__main__":
    main()
