"""The run of a day: raw partition -> champion, unattended."""
