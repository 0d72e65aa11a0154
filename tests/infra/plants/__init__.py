"""Tests of infra.plants."""
