"""The base of everything YAML can name: frozen and strict, so a misspelt key or an unknown kind fails at load."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A technique's settings. Subclasses add `__call__(tensors)` or `build(...) -> nn.Module` in the same file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
