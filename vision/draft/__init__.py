"""The draft shot: a character's picture cut into layers, bent by a pose and put before a place, without a model."""
