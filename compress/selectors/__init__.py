"""How students are proposed, costed against the budget, ranked and chosen."""
