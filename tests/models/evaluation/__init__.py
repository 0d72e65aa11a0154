"""Tests of the evaluation of bundles."""
