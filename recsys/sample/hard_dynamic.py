"""Hard negatives: each row's best items as the model stands now. Shapes: N = predictions, K = negatives of a row."""

from typing import Literal

from pydantic import Field

from recsys.sample.hard import Against, HardSpec, Standing, above


class Dynamic(HardSpec):
    """Dynamic hard negatives of ADORE, Zhan et al. 2021, https://arxiv.org/abs/2104.08051: of the pool, the items that each row
    scores highest at this very step. `negatives: {kind: catalogue}` makes the whole catalogue the pool, as in the paper.

    Differs from the paper: the search is exact; items that the row's window holds anywhere, also later, are no negatives
    (`guard`), since all of them are known positives; `skip` leaves out the very first, among which unknown positives are
    most frequent; item vectors may learn as well, and where they are held (`freeze_items`, the paper's second stage) the
    encoder, which reads the same vectors, still learns. The paper's loss is `lambda_pairs`; any sampled loss may be used, with
    the pool's logQ correction.
    """

    kind: Literal["dynamic"] = "dynamic"
    count: int = Field(100, ge=1, description="negatives of each row")
    skip: int = Field(0, ge=0, description="so many of the best are passed over, as likely positives that nobody has seen")
    guard: bool = Field(True, description="items of the row's own window, later ones too, are never its negatives")
    freeze_items: bool = Field(False, description="no gradient to item vectors: only the encoder learns")

    @property
    def freezes_items(self) -> bool:
        return self.freeze_items

    @property
    def reach(self) -> int:
        return self.skip + self.count

    def __call__(self, standing: Standing) -> Against:
        """The chosen negatives with their scores."""
        chosen = standing.hardest(self.count, self.skip, guard=self.guard)
        negative_NK = standing.scores(chosen)
        return Against(negative_NK, standing.log_expected_S[chosen.place_NK], terms=above(standing, negative_NK))
