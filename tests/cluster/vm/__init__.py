"""One more node for the local cluster, in a virtual machine: for what this machine's kernel lacks, such as AppArmor.

The guest is Debian with its own kernel, which QEMU emulates. Programs and configuration of the node are those of the
other nodes: the guest reads them from this machine (9p), and has a disk for what its containers write.
"""
