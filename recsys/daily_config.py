"""What a day's run looks at, and whom it tells. Without imports of torch: a scheduler reads it, and keeps what it imports."""

from pydantic import Field

from recsys.spec import Spec


class EmailConfig(Spec):
    """Where reports go by mail. The password, where the server wants one, stands in the environment: RECSYS_SMTP_PASSWORD."""

    to: tuple[str, ...] = Field(min_length=1, description="addresses")
    sender: str = Field("recsys@localhost", description="address")
    host: str = Field("localhost", description="of the SMTP server")
    port: int = Field(25, ge=1, le=65535, description="of the SMTP server")
    starttls: bool = Field(False, description="encrypt the connection, as servers at port 587 want it")
    user: str | None = Field(None, description="to log in as; null: without a login")


class DailyConfig(Spec):
    """What the run of a day looks at before it trains, and whom it tells."""

    keep_days: int = Field(
        7, ge=1, description="days whose artefacts are kept; the champion's and its predecessor's always are"
    )
    processes: int = Field(1, ge=1, description="of torchrun, in which a day trains: one for each GPU of the machine")
    marker: str | None = Field(None, description="file that says that a day's partition is whole, such as _SUCCESS; null: none")
    min_rows_share: float = Field(
        0.3, ge=0, le=1, description="rows of a day beside the median of the days before, below which it counts as half arrived"
    )
    min_users_share: float = Field(0.3, ge=0, le=1, description="the same for its users")
    quiet_seconds: float = Field(0, ge=0, description="for so long none of a day's files may have changed; 0: not asked")
    utc_offset_hours: float = Field(0, ge=-12, le=14, description="of the clock by which the log is cut into days")
    max_outside_share: float = Field(
        0.2, ge=0, le=1, description="of a day's rows, those that lie outside of the day, late ones included"
    )
    max_bot_share: float | None = Field(
        0.5, gt=0, lt=1, description="of a day's rows, those of users that no person can be; null: not looked at"
    )
    bot_events_per_day: int = Field(2000, ge=1, description="more different moments with rows on a day are no person's")
    alarm_volume: float | None = Field(
        0.5, gt=0, lt=1, description="change of a day's rows or users from the median of the days before; 0.5: half or double"
    )
    alarm_drift: float | None = Field(0.25, gt=0, description="population stability index of a column or a feature")
    alarm_loss: float | None = Field(
        0.5,
        gt=0,
        description="how far a training loss may end above its lowest value, or that of the days before, a share of it",
    )
    alarm_metric: float | None = Field(
        0.2, gt=0, lt=1, description="drop of the main metric below the median of the days before, a share of it"
    )
    alarm_stale_days: int | None = Field(3, ge=1, description="days since the one on whose data the champion was trained")
    alarm_silent_hours: float | None = Field(36, gt=0, description="since the last step of any day ended; for `recsys status`")
    reload_seconds: float = Field(120, gt=0, description="within which --endpoint has to serve a new champion")
    webhook: str | None = Field(
        None, pattern="^https?://", description="URL to which each report is posted as JSON, its headline as `text`; null: none"
    )
    email: EmailConfig | None = Field(None, description="to whom each report is mailed, such as {to: [me@example.org]}")
