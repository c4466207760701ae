"""Networks that judge images, loaded from local folders."""
