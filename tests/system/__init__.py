"""Tests of several real processes together."""
