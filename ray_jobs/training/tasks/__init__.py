"""Train each kind of member, and the codec."""
