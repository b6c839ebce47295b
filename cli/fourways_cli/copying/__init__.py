"""Files copied into a claim: by a short-lived pod on a cluster, or into its folder on this machine.

``receive`` writes one file, in the pod and here; ``pod`` describes the pod; ``cluster`` runs it.
"""
