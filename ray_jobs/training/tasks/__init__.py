"""What training means for each kind of member."""
