//! For tests only: namespaces, LANs, daemons, fake guests, real DHCP clients.
