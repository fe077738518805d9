"""The base of everything YAML can name: frozen and strict, so a misspelt key or an unknown kind fails at load."""

from pydantic import BaseModel, ConfigDict, ValidationInfo

STORED = "stored"  # context of a validation: what is read was written out by a run, defaults and all


class Spec(BaseModel):
    """A technique's settings. Subclasses add `__call__(tensors)` or `build(...) -> nn.Module` in the same file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def asked_for(spec: Spec, name: str, info: ValidationInfo) -> bool:
    """Whether the field was named by the user: a run that stores its config names them all."""
    return name in spec.model_fields_set and not (info.context or {}).get(STORED)
