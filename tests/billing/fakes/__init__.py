"""Stateful fakes of the ingest APIs of billing products, by their published rules. No product's code is in them."""
