"""What a release carries beside the package: a bill of materials, and an audit of what it depends on."""
