"""Who sends a request, and whether the caller may: API keys, tokens, scopes, rates.

Owns credentials and nothing else. Knows neither models nor the meaning of a path: a server says
which verb each of its paths needs.
"""
