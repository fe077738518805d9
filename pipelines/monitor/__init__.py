"""What a day's data and model look like beside the days before."""
