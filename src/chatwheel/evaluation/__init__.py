"""How good it is: suites, judges, arenas, reports."""
