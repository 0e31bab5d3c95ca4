"""Bayesian inference on models small enough that exact answers exist: what the chapters begin with."""
