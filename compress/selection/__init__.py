"""How students are proposed, held against the budget and compared: what the select stage and the selectors share."""
