"""How several tasks' losses become one gradient: (losses, shared tensors, own parameters) -> adds to their `.grad`.

Every spec has `build(weights)`, weights being task -> weight in the loss, and gives a module that is called once per step:

    terms = balance(losses, shared, own, generator)

`losses()` runs the dense forward pass and returns loss_T with its graph, in the order of `weights`; called again with torch's
random generators in the same state it must return the same. `shared` are the dense parameters that several tasks use and the
embedding vectors of the batch (leaf tensors cut off from their tables, not `nn.Parameter`s); `own` are parameters of one task
each. Every balancer multiplies loss_T by the weights first. A tensor that no task uses keeps the `.grad` it had. With several
processes each balances the tasks of its own part of the batch. The terms are to be logged: "loss", the total; "loss/<task>",
each task's loss without its weight; and the method's own.
"""

from typing import Annotated

from pydantic import Field

from recsys.balance.fixed import Fixed
from recsys.balance.flat_regions import FlatRegions
from recsys.balance.pcgrad import PCGrad
from recsys.balance.rep_mtl import RepMTL
from recsys.balance.uncertainty import Uncertainty

Balance = Annotated[Fixed | Uncertainty | PCGrad | RepMTL | FlatRegions, Field(discriminator="kind")]
