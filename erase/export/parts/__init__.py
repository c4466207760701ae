"""What the exports share: manifests, recipes, cards, undoing, inspection."""
