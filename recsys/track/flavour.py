"""A bundle as an MLflow model: the files beside it that let `mlflow.pyfunc.load_model` open it.

`MLmodel` is YAML that MLflow documents (https://mlflow.org/docs/latest/ml/model/); writing it here spares the import of
MLflow's model code, which takes seconds. The folder stays a bundle: its manifest names the files that count.
"""

import json
import platform
import uuid
from datetime import UTC, datetime
from importlib import metadata

import yaml

LOADER = "serving.pyfunc"
EXAMPLE, REQUEST = "input_example.json", "serving_input_example.json"
INPUTS = [
    {"type": "string", "name": "user_id", "required": True},
    {"type": "long", "name": "k", "required": False},
]
OUTPUTS = [
    {"type": "array", "items": {"type": "string"}, "name": "item_id", "required": True},
    {"type": "array", "items": {"type": "double"}, "name": "score", "required": True},
]
REQUIREMENTS = ("recsys", "numpy", "onnxruntime", "pandas", "pyarrow", "pydantic")


def model_files(run_id: str, folder: str, user_id: str, *, max_k: int) -> dict[str, str]:
    """File name -> text, to go into the bundle's artefact folder. `user_id`: one that the bundle knows, as an example."""
    example = {"columns": ["user_id", "k"], "data": [[user_id, min(5, max_k)]]}
    model = {
        "artifact_path": folder,
        "flavors": {
            "python_function": {
                "loader_module": LOADER, "python_version": platform.python_version(), "env": {"virtualenv": "python_env.yaml"},
            }
        },
        "mlflow_version": metadata.version("mlflow"),
        "model_uuid": uuid.uuid4().hex,
        "run_id": run_id,
        "saved_input_example_info": {
            "artifact_path": EXAMPLE, "type": "dataframe", "pandas_orient": "split", "serving_input_path": REQUEST,
        },
        "signature": {"inputs": json.dumps(INPUTS), "outputs": json.dumps(OUTPUTS), "params": None},
        "utc_time_created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }  # fmt: skip
    python = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    return {
        "MLmodel": yaml.safe_dump(model, sort_keys=False),
        EXAMPLE: json.dumps(example),
        REQUEST: json.dumps({"dataframe_split": example}),
        "requirements.txt": "".join(f"{name}=={metadata.version(name)}\n" for name in _there(REQUIREMENTS)),
        "python_env.yaml": yaml.safe_dump(python),
    }


def _there(names: tuple[str, ...]) -> list[str]:
    known = {each.name for each in metadata.distributions()}
    return [name for name in names if name in known]
