//! One virtual machine, from command line to exit status.
