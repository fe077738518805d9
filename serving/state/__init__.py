"""What users did since the model was made: recent events, kept in Redis or in an embedded SQLite file."""
