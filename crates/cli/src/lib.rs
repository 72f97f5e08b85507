//! The command line, vnet.
