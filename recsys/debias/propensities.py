"""The sources of propensities that YAML can name."""

from typing import Annotated

from pydantic import Field

from recsys.debias.examination import Examination
from recsys.debias.learned import Learned
from recsys.debias.logged import Logged
from recsys.debias.naive_bayes import NaiveBayes
from recsys.debias.popularity import Popularity

Propensity = Annotated[Popularity | Logged | Learned | NaiveBayes | Examination, Field(discriminator="kind")]
