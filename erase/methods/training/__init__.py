"""What the trained methods share: the bank, the network, the training loop, the session around them."""
