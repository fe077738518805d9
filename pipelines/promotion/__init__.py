"""The candidate becomes the champion, or goes back, by gates over stored facts."""
