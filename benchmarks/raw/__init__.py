"""The limits: the driver alone, one transaction each, and a group-commit loop; with the columns and rows of ours."""
