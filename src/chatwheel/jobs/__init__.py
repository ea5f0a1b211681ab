"""Long work: whole recipes, stage by stage."""
