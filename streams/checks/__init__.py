"""What `rehearse doctor` looks at: each check yields findings, each finding says its remedy."""
