"""How good it is: judges, the examination, suites, reports."""
