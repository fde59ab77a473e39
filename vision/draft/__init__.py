"""The draft shot: a character's picture cut into layers and bent by a pose, without a model."""
