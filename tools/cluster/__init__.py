"""A real Kubernetes for the tests: `python -m tools.cluster COMMAND`, from the top of the checkout.

Three kinds of cluster, tried in this order (`detect`): one that is *given* (a kubeconfig in the
environment), *kind* where a Docker engine answers, and a *local* one elsewhere: the control plane
and one node as plain processes in a network namespace of their own, from Go modules and Debian
packages, for machines that have neither a container engine nor an image registry.

What the rest of the project needs to know is three things: `up` prints where the kubeconfig is,
`images` prints the reference an image goes by on the node, and `can` says whether any of this is
possible here.
"""
