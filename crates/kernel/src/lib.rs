//! Observes and changes the kernel: rtnetlink, nft, sysctl.
