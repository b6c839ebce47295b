"""A real Kubernetes for the tests: `python -m tools.cluster COMMAND`, from the top of the checkout.

There are three kinds of cluster, tried in this order (`detect`): a *given* one (a kubeconfig in the
environment), *kind* if a Docker engine is available, and otherwise a *local* one. The local one
runs the control plane and one node as plain processes in their own network namespace, from Go
modules and Debian packages, on machines that have neither a container engine nor an image registry.

The rest of the project uses three commands: `up` prints the path of the kubeconfig, `images` prints
the reference of an image on the node, and `can` tells whether a cluster is possible here.
"""
