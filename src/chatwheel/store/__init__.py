"""What is kept: tables, migrations, files, and models with their lineage."""
