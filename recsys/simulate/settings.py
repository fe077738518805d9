"""Size and habits of the simulated world."""

from datetime import date

from pydantic import Field, model_validator

from recsys.spec import Spec

DAY_MS = 86_400_000


class Simulation(Spec):
    """Size and habits of the simulated world. `events` counts impressions and is rounded down to whole pages of `slots`.

    The slots of a page are drawn independently, so an item can appear twice on a page: the price of exact propensities.
    """

    users: int = Field(2000, ge=1, le=10**8, description="users in the catalogue")
    items: int = Field(1000, ge=2, le=10**8, description="items in the catalogue, all available from the first day")
    events: int = Field(200_000, ge=1, description="impressions in all")
    days: int = Field(30, ge=1, le=3650, description="days of log, each with the same number of pages give or take one")
    categories: int = Field(20, ge=1, le=100_000, description="item categories")
    latent_dim: int = Field(16, ge=1, le=1024, description="length of the taste and item vectors")
    slots: int = Field(10, ge=1, le=127, description="impressions on a page")
    accidental_share: float = Field(0.05, ge=0, le=0.5, description="share of clicks made by accident")
    explore_share: float = Field(0.1, ge=0, le=1, description="probability that the policy fills a slot uniformly at random")
    drift: float = Field(0.03, ge=0, le=1, description="per day, tastes keep a correlation of 1 - drift with the day before")
    trend: float = Field(
        0, ge=0, le=3, description="items are in fashion or not: standard deviation of what that adds to the logit of a click"
    )
    trend_drift: float = Field(
        0.1, ge=0, le=1, description="per day, fashion keeps a correlation of 1 - trend_drift with the day before"
    )
    zipf_exponent: float = Field(0.9, ge=0, le=3, description="popularity of the n-th most popular item is n ** -zipf_exponent")
    position_decay: float = Field(0.5, ge=0, le=5, description="slot s is examined with probability (s + 1) ** -position_decay")
    session_requests: float = Field(3.0, ge=1, le=10, description="mean pages of a session before the cut at 12")
    activity_spread: float = Field(0.6, ge=0, le=3, description="standard deviation of the logarithm of users' activity")
    seed: int = Field(1, ge=0, lt=2**63, description="same settings and seed, same bytes")
    start_date: date = Field(date(2026, 1, 1), ge=date(1970, 1, 1), le=date(2200, 1, 1), description="first day, UTC")

    @model_validator(mode="after")
    def _check(self) -> "Simulation":
        if self.categories > self.items:
            raise ValueError(f"categories={self.categories} is more than items={self.items}: each category needs an item")
        if self.events < self.slots * max(self.users, self.days):
            raise ValueError(
                f"events={self.events} is too few: slots={self.slots} for each of users={self.users} and of days={self.days} "
                f"takes {self.slots * max(self.users, self.days)}"
            )
        if self.events // self.slots > self.days * DAY_MS // 4:
            raise ValueError(f"events={self.events} in days={self.days} is over one page per 4 ms: add days or slots")
        return self
