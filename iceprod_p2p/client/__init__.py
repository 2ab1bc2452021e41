"""What a person's programs share: contexts (which cluster, as whom), calls with fail-over, submission."""
