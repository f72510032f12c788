"""Double-Win Lottery Tickets: how far a pre-trained network can be pruned and still transfer, accurate and robust."""
