"""What the closed forms share: which states are edited, the ridge problem, the maps it gives."""
