"""The `iceprod` command: submit, watch and repair productions from a terminal or a script."""
