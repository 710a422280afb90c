"""Pages on tables of tag sets: their card on the Hub, and a comparison with other rows."""
