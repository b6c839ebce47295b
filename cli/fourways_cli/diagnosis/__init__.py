"""What `fourways doctor` looks at: this machine and a cluster, judged without changing anything."""
