"""Which examples to trust: (loss, label, context) -> a weight per example. They multiply in `recsys.train`."""

from typing import Annotated

from pydantic import Field

from recsys.denoise.informative import Informative
from recsys.denoise.personal import Personal
from recsys.denoise.reweighted import Reweighted
from recsys.denoise.self_taught import SelfTaught
from recsys.denoise.truncated import Truncated

Denoiser = Annotated[Truncated | Reweighted | Personal | Informative | SelfTaught, Field(discriminator="kind")]
