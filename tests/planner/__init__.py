"""Tests of the package planner."""
