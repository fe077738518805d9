"""Which examples to trust: (loss, label, step) -> a weight per example. Weights multiply in `recsys.train.objective`."""

from recsys.denoise.truncated import Truncated

Denoiser = Truncated  # with a second member: Annotated[Truncated | Other, Field(discriminator="kind")]
