"""A server of runs: routes shaped as OpenAI's and our own, batching, limits. Needs the extra `serve`."""
