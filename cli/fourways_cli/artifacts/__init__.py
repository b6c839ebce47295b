"""Models as artifacts of OCI registries: written as the runtime reads them.

``logins`` finds the credentials that `docker login` left, ``registry`` uploads one file, and
``manifest_edit`` writes where it is into a manifest.
"""
