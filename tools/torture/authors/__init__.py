"""Ways for an author of a deployment to reach what is not the author's, each tried once.

:mod:`.way` says what a way is, :mod:`.manifests` has those that a manifest tries, :mod:`.hosts`
those with hosts and Secrets, :mod:`.files` those with files and models, and :mod:`.rows` those with
SQL. ``python -m tools.torture.authors`` tries them all.
"""
