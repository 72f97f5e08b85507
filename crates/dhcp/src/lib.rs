//! A DHCP server that owns no socket and no clock.
