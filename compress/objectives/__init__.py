"""Terms of the loss that several methods share: one file per objective."""
